//! Reservations of chat calls whose process died, or that nobody ended in time: what became of them is not known.

use crate::db::on;
use crate::reservations::MoneyEnd;
use crate::settle::CallEnd;
use crate::{Store, StoreError};

/// How many one call ends at most.
const AT_ONCE: i64 = 500;
const OVERDUE: &str = "SELECT id FROM reservations WHERE state = 'held' AND expires_at IS NOT NULL \
    AND (expires_at <= $1 OR owner NOT IN (SELECT id FROM workers WHERE lease_until >= $2)) LIMIT $3";

impl Store {
    /// Ends the reservations of chat calls that nobody will end any more as uncertain, at most 500; gives how many. Word that
    /// comes late still settles them.
    pub async fn end_overdue_calls(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        // In the embedded database a row is there as long as its process is.
        let alive_since = if self.is_embedded() { 0 } else { now.0 };
        let overdue: Vec<String> = on!(self.db.read(), |pool| {
            sqlx::query_scalar(OVERDUE).bind(now.0).bind(alive_since).bind(AT_ONCE).fetch_all(pool).await
        })?;
        let ends = overdue.iter().map(|id| {
            self.end_call(CallEnd { id: id.clone(), reserved: true, end: MoneyEnd::Uncertain, at: now, row: None })
        });
        for ended in futures_util::future::join_all(ends).await {
            ended?;
        }
        Ok(overdue.len() as u64)
    }
}
