//! Idempotency keys: the first request with a key is done, a repeated one gets the first one's answer.

use std::collections::HashMap;

use aig_domain::Millis;

use crate::accept::{Accepted, NewJob};
use crate::db::{Tx, on};
use crate::jobs::{JobRow, job_by_id, job_columns};
use crate::sql::{Rows, padded};
use crate::{Store, StoreError};

/// What makes a repeated request the same request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Method and route, such as `POST /v1/audio/music`.
    pub route: &'static str,
    /// The `Idempotency-Key` header.
    pub key: String,
    /// SHA-256 of the body, hex.
    pub body_sha256: String,
    /// How long the key is remembered.
    pub expires_at: Millis,
}

/// The first request with a key that was taken before.
pub(crate) enum Earlier {
    /// It was stored, or had another body.
    Stored(Accepted),
    /// It is the job of this id in the same batch, whose outcome is not known yet.
    Beside(String),
}

/// Keys whose time is over are free again, also before they are cleaned up.
static FORGET_KEYS: Rows = Rows::new(
    "DELETE FROM idempotency WHERE (account_id, route, idem_key) IN \
     (SELECT i.account_id, i.route, i.idem_key FROM (VALUES ",
    &["TEXT", "TEXT", "TEXT", "BIGINT"],
    ") AS v JOIN idempotency i ON i.account_id = v.column1 AND i.route = v.column2 AND i.idem_key = v.column3 \
     WHERE i.expires_at <= v.column4)",
);
const FIND_KEY: &str =
    "SELECT body_sha256, job_id FROM idempotency WHERE account_id = $1 AND route = $2 AND idem_key = $3";
const FIND_JOB: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1");
static CLAIM_KEYS: Rows = Rows::new(
    "INSERT INTO idempotency (account_id, route, idem_key, body_sha256, job_id, expires_at) VALUES ",
    &["TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT"],
    " ON CONFLICT DO NOTHING RETURNING job_id",
);

/// Claims the idempotency keys of `items`. Gives, by job id, the first requests of those whose key was taken before.
pub(crate) async fn claim_keys(tx: &mut Tx, items: &[&NewJob]) -> Result<HashMap<String, Earlier>, StoreError> {
    let mut keyed: Vec<(&NewJob, &Idempotency)> =
        items.iter().filter_map(|item| item.idempotency.as_ref().map(|key| (*item, key))).collect();
    // Two processes that insert the same keys in one order cannot deadlock. The sort is stable: first come, first served.
    keyed.sort_by(|(a, x), (b, y)| (&a.job.account_id, x.route, &x.key).cmp(&(&b.job.account_id, y.route, &y.key)));
    for piece in padded(&keyed) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(FORGET_KEYS.sql(piece.len()));
            for (new, key) in &piece {
                query = query.bind(&new.job.account_id).bind(key.route).bind(&key.key).bind(new.job.created_at.0);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    let mut claimed: Vec<String> = Vec::with_capacity(keyed.len());
    for piece in padded(&keyed) {
        let rows: Vec<String> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_scalar(CLAIM_KEYS.sql(piece.len()));
            for (new, key) in &piece {
                query = query
                    .bind(&new.job.account_id)
                    .bind(key.route)
                    .bind(&key.key)
                    .bind(&key.body_sha256)
                    .bind(&new.job.id)
                    .bind(key.expires_at.0);
            }
            query.fetch_all(c).await
        })?;
        claimed.extend(rows);
    }
    let mut earlier = HashMap::new();
    for (new, key) in keyed {
        if !claimed.contains(&new.job.id) {
            earlier.insert(new.job.id.clone(), earlier_answer(tx, items, new, key).await?);
        }
    }
    Ok(earlier)
}

async fn earlier_answer(
    tx: &mut Tx,
    items: &[&NewJob],
    new: &NewJob,
    key: &Idempotency,
) -> Result<Earlier, StoreError> {
    let (body_sha256, job_id): (String, String) = on!(tx.conn(), |c| {
        sqlx::query_as(FIND_KEY).bind(&new.job.account_id).bind(key.route).bind(&key.key).fetch_one(c).await
    })?;
    if body_sha256 != key.body_sha256 {
        return Ok(Earlier::Stored(Accepted::Mismatch));
    }
    // The first may be another item of this very batch, whose row is not written yet.
    if items.iter().any(|item| item.job.id == job_id) {
        return Ok(Earlier::Beside(job_id));
    }
    let row: JobRow = on!(tx.conn(), |c| sqlx::query_as(FIND_JOB).bind(&job_id).fetch_one(c).await)?;
    Ok(Earlier::Stored(Accepted::Replayed(Box::new(row.try_into()?))))
}

const EARLIER: &str = "SELECT body_sha256, job_id FROM idempotency WHERE account_id = $1 AND route = $2 AND idem_key = $3 \
    AND expires_at > $4";

impl Store {
    /// What the first request of `account_id` with this key got: [`Accepted::Replayed`] or [`Accepted::Mismatch`]; `None` when the
    /// key is free.
    pub async fn earlier_job(&self, account_id: &str, key: &Idempotency) -> Result<Option<Accepted>, StoreError> {
        let now = self.clock.now();
        let found: Option<(String, String)> = on!(self.db.read(), |pool| {
            let query = sqlx::query_as(EARLIER).bind(account_id).bind(key.route).bind(&key.key).bind(now.0);
            query.fetch_optional(pool).await
        })?;
        let Some((body_sha256, job_id)) = found else { return Ok(None) };
        if body_sha256 != key.body_sha256 {
            return Ok(Some(Accepted::Mismatch));
        }
        Ok(job_by_id(&self.db, &job_id).await?.map(|job| Accepted::Replayed(Box::new(job))))
    }
}

const FREE: &str = "DELETE FROM idempotency WHERE account_id = $1 AND route = $2 AND idem_key = $3 AND job_id = $4";

/// Gives back the keys of requests that were refused: nothing remains of those.
pub(crate) async fn free_keys<'a>(
    tx: &mut Tx,
    refused: impl Iterator<Item = &'a &'a NewJob>,
) -> Result<(), StoreError> {
    for new in refused {
        let Some(key) = &new.idempotency else { continue };
        on!(tx.conn(), |c| {
            sqlx::query(FREE)
                .bind(&new.job.account_id)
                .bind(key.route)
                .bind(&key.key)
                .bind(&new.job.id)
                .execute(c)
                .await
                .map(drop)
        })?;
    }
    Ok(())
}
