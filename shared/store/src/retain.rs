//! Retention: what is deleted when its time is over. Each call deletes a bounded number of rows.

use std::time::Duration;

use aig_domain::job::JobResult;

use crate::db::on;
use crate::{Store, StoreError};

const AT_ONCE: i64 = 500;
/// How long ended tasks and webhook events are kept, for an operator who asks what happened.
const ENDED_KEPT: Duration = Duration::from_hours(168);
/// How long the row of a dead worker is kept.
const WORKER_KEPT: Duration = Duration::from_hours(24);

/// A result whose time is over.
#[derive(Clone, Debug)]
pub struct Expired {
    /// The job.
    pub job_id: String,
    /// Under which key its file is.
    pub file_key: String,
}

const EXPIRED: &str =
    "SELECT id, result FROM jobs WHERE result IS NOT NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2";
const FORGET: &str = "UPDATE jobs SET result = NULL, version = version + 1 WHERE id = $1 AND result IS NOT NULL";
const OLD_KEYS: &str = "DELETE FROM idempotency WHERE (account_id, route, idem_key) IN \
    (SELECT account_id, route, idem_key FROM idempotency WHERE expires_at <= $1 LIMIT $2)";
const OLD_TASKS: &str = "DELETE FROM tasks WHERE id IN \
    (SELECT id FROM tasks WHERE ended_at IS NOT NULL AND ended_at <= $1 LIMIT $2)";
const OLD_ATTEMPTS: &str = "DELETE FROM webhook_attempts WHERE event_id IN \
    (SELECT id FROM webhook_events WHERE ended_at IS NOT NULL AND ended_at <= $1 LIMIT $2)";
const OLD_EVENTS: &str = "DELETE FROM webhook_events WHERE id IN \
    (SELECT id FROM webhook_events WHERE ended_at IS NOT NULL AND ended_at <= $1 LIMIT $2) \
    AND NOT EXISTS (SELECT 1 FROM webhook_attempts WHERE webhook_attempts.event_id = webhook_events.id)";
const OLD_WORKERS: &str = "DELETE FROM workers WHERE id IN (SELECT id FROM workers WHERE lease_until <= $1 LIMIT $2) \
    AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.worker = workers.id AND tasks.state = 'running')";

impl Store {
    /// Results whose time is over, oldest first.
    pub async fn expired_results(&self) -> Result<Vec<Expired>, StoreError> {
        let now = self.clock.now();
        let rows: Vec<(String, String)> =
            on!(self.db.read(), |pool| { sqlx::query_as(EXPIRED).bind(now.0).bind(AT_ONCE).fetch_all(pool).await })?;
        rows.into_iter()
            .map(|(job_id, text)| match serde_json::from_str::<JobResult>(&text) {
                Ok(result) => Ok(Expired { job_id, file_key: result.file_key }),
                Err(_) => Err(StoreError::Corrupt(format!("job {job_id}: unknown result"))),
            })
            .collect()
    }

    /// Records that the file of a job is gone.
    pub async fn forget_result(&self, job_id: &str) -> Result<(), StoreError> {
        on!(self.db.write(), |pool| sqlx::query(FORGET).bind(job_id).execute(pool).await.map(drop))?;
        Ok(())
    }

    /// Deletes idempotency keys, ended tasks, ended webhook events and dead workers whose time is over; gives how many.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let (ended, dead) = (now.minus(ENDED_KEPT), now.minus(WORKER_KEPT));
        let sweeps =
            [(OLD_KEYS, now), (OLD_TASKS, ended), (OLD_ATTEMPTS, ended), (OLD_EVENTS, ended), (OLD_WORKERS, dead)];
        let mut swept = 0;
        for (sql, before) in sweeps {
            swept += on!(self.db.write(), |pool| {
                sqlx::query(sql).bind(before.0).bind(AT_ONCE).execute(pool).await.map(|done| done.rows_affected())
            })?;
        }
        Ok(swept)
    }
}
