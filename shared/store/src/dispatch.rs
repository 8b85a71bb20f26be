//! What the dispatch tick reads and writes: waiting tasks whose time has come, and how much is ready in each queue.

use aig_domain::task::QUEUES;

use crate::db::on;
use crate::{Store, StoreError};

/// How many tasks one tick makes ready, and up to which number it counts.
const AT_ONCE: i64 = 1024;

const PROMOTE: &str = "WITH due (task_id) AS MATERIALIZED \
    (SELECT id FROM tasks WHERE state = 'waiting' AND run_at <= $1 ORDER BY run_at LIMIT $2) \
    UPDATE tasks SET state = 'ready' FROM due WHERE id = task_id AND COALESCE(state, '') = 'waiting'";
const COUNT: &str =
    "SELECT COUNT(*) FROM (SELECT 1 AS hit FROM tasks WHERE queue = $1 AND state = 'ready' LIMIT $2) AS ready";

/// How much is due in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueWork {
    /// The queue.
    pub queue: &'static str,
    /// How many tasks are ready, counted up to 1,024.
    pub ready: u64,
}

impl Store {
    /// Makes waiting tasks ready whose time has come, at most 1,024; gives how many.
    pub async fn promote_due(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let promoted = on!(self.db.write(), |pool| {
            sqlx::query(PROMOTE).bind(now.0).bind(AT_ONCE).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(promoted)
    }

    /// How much is ready in each queue.
    pub async fn due(&self) -> Result<Vec<DueWork>, StoreError> {
        let mut due = Vec::with_capacity(QUEUES.len());
        for queue in QUEUES {
            let ready: i64 = on!(self.db.read(), |pool| {
                sqlx::query_scalar(COUNT).bind(queue).bind(AT_ONCE).fetch_one(pool).await
            })?;
            due.push(DueWork { queue, ready: u64::try_from(ready).unwrap_or(0) });
        }
        Ok(due)
    }
}
