//! What the dispatch tick reads and writes: waiting tasks whose time has come, and how much is ready in each queue.

use aig_domain::task::QUEUES;
use sqlx::AssertSqlSafe;

use crate::db::on;
use crate::sql::{Rows, padded};
use crate::{Store, StoreError, dialect, fair};

/// How many tasks one tick makes ready, and up to which number it counts.
const AT_ONCE: i64 = 1024;

const IS_DUE: &str = "SELECT id FROM tasks WHERE state = 'waiting' AND run_at <= $1 LIMIT 1";
const DUE: &str =
    "SELECT id, queue, account_id FROM tasks WHERE state = 'waiting' AND run_at <= $1 ORDER BY run_at LIMIT $2";
static PROMOTE: Rows = Rows::new(
    "WITH v (id, fair_seq) AS (VALUES ",
    &["TEXT", "BIGINT"],
    ") UPDATE tasks SET state = 'ready', fair_seq = v.fair_seq FROM v WHERE tasks.id = v.id \
     AND COALESCE(tasks.state, '') = 'waiting'",
);
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
    /// Makes waiting tasks ready whose time has come, at most 1,024; gives how many. Each takes its tenant's next place, so
    /// that a tenant whose work is tried again and again stays behind new work of others.
    pub async fn promote_due(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let any: Option<String> =
            on!(self.db.read(), |pool| sqlx::query_scalar(IS_DUE).bind(now.0).fetch_optional(pool).await)?;
        if any.is_none() {
            return Ok(0);
        }
        let mut tx = self.db.begin().await?;
        let sql = format!("{DUE}{}", dialect::skip_locked(&tx));
        let due: Vec<(String, String, String)> =
            on!(tx.conn(), |c| { sqlx::query_as(AssertSqlSafe(sql)).bind(now.0).bind(AT_ONCE).fetch_all(c).await })?;
        let owners: Vec<(&str, &str)> =
            due.iter().map(|(_, queue, account)| (queue.as_str(), account.as_str())).collect();
        let places = fair::take_places(&mut tx, &owners).await?;
        let promoted: Vec<(&str, i64)> = due.iter().map(|(id, _, _)| id.as_str()).zip(places).collect();
        for piece in padded(&promoted) {
            on!(tx.conn(), |c| {
                let mut query = sqlx::query(PROMOTE.sql(piece.len()));
                for (id, fair_seq) in &piece {
                    query = query.bind(*id).bind(fair_seq);
                }
                query.execute(c).await.map(drop)
            })?;
        }
        tx.commit().await?;
        Ok(promoted.len() as u64)
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
