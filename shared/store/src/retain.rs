//! Retention: what is deleted when its time is over. Each call deletes a bounded number of rows.

use std::time::Duration;

use aig_domain::job::JobResult;

use crate::db::on;
use crate::sql::{Rows, padded};
use crate::{Store, StoreError};

const AT_ONCE: i64 = 500;
/// How long ended tasks and webhook events are kept, for an operator who asks what happened.
const ENDED_KEPT: Duration = Duration::from_hours(168);
/// How long the usage row of a request is kept. What was charged stays in the ledger.
const USAGE_KEPT: Duration = Duration::from_hours(90 * 24);
/// How long the row of a dead worker is kept.
const WORKER_KEPT: Duration = Duration::from_hours(24);

/// A result whose time is over.
#[derive(Clone, Debug)]
pub struct Expired {
    /// The job.
    pub job_id: String,
    /// Under which key its file is; `None` when the row cannot be read.
    pub file_key: Option<String>,
    /// When its time was over; with the id, where the next page begins.
    pub expires_at: i64,
}

const EXPIRED: &str = "SELECT id, result, expires_at FROM jobs WHERE result IS NOT NULL AND expires_at <= $1 \
    AND (expires_at > $2 OR (expires_at = $2 AND id > $3)) ORDER BY expires_at, id LIMIT $4";
static FORGET: Rows = Rows::new(
    "WITH v (id) AS (VALUES ",
    &["TEXT"],
    ") UPDATE jobs SET result = NULL, version = jobs.version + 1 FROM v WHERE jobs.id = v.id \
     AND COALESCE(jobs.result, '') <> ''",
);
const OLD_KEYS: &str = "DELETE FROM idempotency WHERE (account_id, route, idem_key) IN \
    (SELECT account_id, route, idem_key FROM idempotency WHERE expires_at <= $1 LIMIT $2)";
const OLD_TASKS: &str = "DELETE FROM tasks WHERE id IN \
    (SELECT id FROM tasks WHERE ended_at IS NOT NULL AND ended_at <= $1 LIMIT $2)";
const OLD_ATTEMPTS: &str = "DELETE FROM webhook_attempts WHERE event_id IN \
    (SELECT id FROM webhook_events WHERE ended_at IS NOT NULL AND ended_at <= $1 LIMIT $2)";
const OLD_EVENTS: &str = "DELETE FROM webhook_events WHERE id IN \
    (SELECT id FROM webhook_events WHERE ended_at IS NOT NULL AND ended_at <= $1 LIMIT $2) \
    AND NOT EXISTS (SELECT 1 FROM webhook_attempts WHERE webhook_attempts.event_id = webhook_events.id)";
const OLD_REQUESTS: &str = "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE created_at <= $1 LIMIT $2)";
const OLD_WORKERS: &str = "DELETE FROM workers WHERE id IN (SELECT id FROM workers WHERE lease_until <= $1 LIMIT $2) \
    AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.state = 'running' AND tasks.worker = workers.id)";

impl Store {
    /// Results whose time is over, oldest first, after the one given.
    pub async fn expired_results(&self, after: Option<&Expired>) -> Result<Vec<Expired>, StoreError> {
        let now = self.clock.now();
        let (at, id) = after.map_or((i64::MIN, ""), |last| (last.expires_at, last.job_id.as_str()));
        let rows: Vec<(String, String, i64)> = on!(self.db.read(), |pool| {
            sqlx::query_as(EXPIRED).bind(now.0).bind(at).bind(id).bind(AT_ONCE).fetch_all(pool).await
        })?;
        Ok(rows
            .into_iter()
            .map(|(job_id, text, expires_at)| {
                let file_key = serde_json::from_str::<JobResult>(&text).ok().map(|result| result.file_key);
                Expired { job_id, file_key, expires_at }
            })
            .collect())
    }

    /// Records that the files of these jobs are gone.
    pub async fn forget_results(&self, job_ids: &[&str]) -> Result<(), StoreError> {
        for piece in padded(job_ids) {
            on!(self.db.write(), |pool| {
                let mut query = sqlx::query(FORGET.sql(piece.len()));
                for id in &piece {
                    query = query.bind(*id);
                }
                query.execute(pool).await.map(drop)
            })?;
        }
        Ok(())
    }

    /// Deletes idempotency keys, ended tasks, ended webhook events, usage rows and dead workers whose time is over; gives how many.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let (ended, dead) = (now.minus(ENDED_KEPT), now.minus(WORKER_KEPT));
        let sweeps = [
            (OLD_KEYS, now),
            (OLD_TASKS, ended),
            (OLD_ATTEMPTS, ended),
            (OLD_EVENTS, ended),
            (OLD_REQUESTS, now.minus(USAGE_KEPT)),
            (OLD_WORKERS, dead),
        ];
        let mut swept = 0;
        for (sql, before) in sweeps {
            swept += on!(self.db.write(), |pool| {
                sqlx::query(sql).bind(before.0).bind(AT_ONCE).execute(pool).await.map(|done| done.rows_affected())
            })?;
        }
        Ok(swept)
    }
}
