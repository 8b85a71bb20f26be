//! Webhook events and the attempts at delivering them.

use aig_domain::job::Job;

use crate::db::{Tx, on};
use crate::finish::{Delivery, DeliveryEnd, NewEvent};
use crate::lease::WebhookEvent;
use crate::sql::{Rows, padded, with_blanks};
use crate::{Store, StoreError};

static INSERT_EVENTS: Rows = Rows::new(
    "INSERT INTO webhook_events (id, account_id, job_id, url, body, created_at, state) SELECT * FROM (VALUES ",
    &["TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "TEXT"],
    ") AS v WHERE column1 IS NOT NULL",
);

pub(crate) async fn insert_events(tx: &mut Tx, events: &[(&Job, &NewEvent)]) -> Result<(), StoreError> {
    for piece in with_blanks(events) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT_EVENTS.sql(piece.len()));
            for told in piece {
                let (job, event) = (told.map(|(job, _)| job), told.map(|(_, event)| event));
                query = query
                    .bind(event.map(|event| &event.id))
                    .bind(job.map(|job| &job.account_id))
                    .bind(job.map(|job| &job.id))
                    .bind(event.map(|event| &event.url))
                    .bind(event.map(|event| &event.body))
                    .bind(job.map(|job| job.updated_at.0))
                    .bind(job.map(|_| "pending"));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

static INSERT_ATTEMPTS: Rows = Rows::new(
    "INSERT INTO webhook_attempts (event_id, attempt, at, duration_ms, status, error) SELECT * FROM (VALUES ",
    &["TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "TEXT"],
    ") AS v WHERE column1 IS NOT NULL",
);

pub(crate) async fn insert_attempts(tx: &mut Tx, deliveries: &[&Delivery]) -> Result<(), StoreError> {
    for piece in with_blanks(deliveries) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT_ATTEMPTS.sql(piece.len()));
            for delivery in piece {
                let attempt = delivery.map(|delivery| &delivery.attempt);
                query = query
                    .bind(delivery.map(|delivery| &delivery.event_id))
                    .bind(attempt.map(|attempt| i64::from(attempt.number)))
                    .bind(attempt.map(|attempt| attempt.at.0))
                    .bind(attempt.map(|attempt| i64::try_from(attempt.duration_ms).unwrap_or(i64::MAX)))
                    .bind(attempt.and_then(|attempt| attempt.status).map(i64::from))
                    .bind(attempt.and_then(|attempt| attempt.error.as_ref()));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

static UPDATE_EVENTS: Rows = Rows::new(
    "WITH v (id, state, now) AS (VALUES ",
    &["TEXT", "TEXT", "BIGINT"],
    ") UPDATE webhook_events SET state = v.state, ended_at = v.now FROM v WHERE webhook_events.id = v.id",
);

/// Writes the end of the events that have one; those to be tried again stay pending.
pub(crate) async fn update_events(tx: &mut Tx, deliveries: &[&Delivery]) -> Result<(), StoreError> {
    let ended: Vec<(&Delivery, &str)> = deliveries
        .iter()
        .filter_map(|delivery| match delivery.end {
            DeliveryEnd::Delivered => Some((*delivery, "delivered")),
            DeliveryEnd::GaveUp => Some((*delivery, "given_up")),
            DeliveryEnd::Retry(_) => None,
        })
        .collect();
    for piece in padded(&ended) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(UPDATE_EVENTS.sql(piece.len()));
            for (delivery, state) in &piece {
                query = query.bind(&delivery.event_id).bind(*state).bind(delivery.attempt.at.0);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// An event with how its attempts were answered.
#[derive(Clone, Debug)]
pub struct WebhookHistory {
    /// The event.
    pub event: WebhookEvent,
    /// `pending`, `delivered` or `given_up`.
    pub state: String,
    /// The status of each attempt so far; `None` for no answer.
    pub statuses: Vec<Option<i64>>,
}

impl Store {
    /// The event of a job and the attempts at it so far.
    pub async fn webhook_history(&self, job_id: &str) -> Result<Option<WebhookHistory>, StoreError> {
        let found: Option<WebhookEvent> = on!(self.db.read(), |pool| {
            sqlx::query_as("SELECT id, account_id, job_id, url, body FROM webhook_events WHERE job_id = $1")
                .bind(job_id)
                .fetch_optional(pool)
                .await
        })?;
        let Some(event) = found else { return Ok(None) };
        let state: String = on!(self.db.read(), |pool| {
            sqlx::query_scalar("SELECT state FROM webhook_events WHERE id = $1").bind(&event.id).fetch_one(pool).await
        })?;
        let statuses: Vec<Option<i64>> = on!(self.db.read(), |pool| {
            sqlx::query_scalar("SELECT status FROM webhook_attempts WHERE event_id = $1 ORDER BY attempt")
                .bind(&event.id)
                .fetch_all(pool)
                .await
        })?;
        Ok(Some(WebhookHistory { event, state, statuses }))
    }
}
