//! Reservations of chat calls whose process died, or that nobody ended in time: what became of them is not known.

use aig_domain::price::Used;
use aig_domain::{Millis, Nano};
use sqlx::FromRow;

use crate::db::on;
use crate::payer::PayerRow;
use crate::requests::{RequestOutcome, RequestRow};
use crate::reservations::MoneyEnd;
use crate::settle::CallEnd;
use crate::{Store, StoreError};

/// How many one call ends at most.
const AT_ONCE: i64 = 500;
/// The status on record of a call whose process died: what its client's proxy would have said.
const LOST: u16 = 502;
const OVERDUE: &str = "SELECT id, account_id, sub_account_id, key_id, tag, model, provider, created_at, price \
    FROM reservations WHERE state = 'held' AND expires_at IS NOT NULL \
    AND (expires_at <= $1 OR owner NOT IN (SELECT id FROM workers WHERE lease_until >= $2)) LIMIT $3";

#[derive(FromRow)]
struct OverdueRow {
    id: String,
    #[sqlx(flatten)]
    payer: PayerRow,
    model: Option<String>,
    provider: Option<String>,
    created_at: i64,
    price: Option<String>,
}

impl OverdueRow {
    fn end(self, at: Millis) -> CallEnd {
        let created_at = Millis(self.created_at);
        let row = RequestRow {
            id: self.id.clone(),
            payer: self.payer.into(),
            job_id: None,
            model: self.model.unwrap_or_default(),
            provider: self.provider.unwrap_or_default(),
            status: LOST,
            outcome: RequestOutcome::Uncertain,
            created_at,
            duration_ms: u64::try_from(created_at.until(at).as_millis()).unwrap_or(u64::MAX),
            used: Used::default(),
            estimated: false,
            price: self.price,
            cost: Nano::ZERO,
        };
        CallEnd { id: self.id, reserved: true, end: MoneyEnd::Uncertain, at, row: Some(row) }
    }
}

impl Store {
    /// Ends the reservations of chat calls that nobody will end any more as uncertain, at most 500; gives how many. Word that
    /// comes late still settles them.
    pub async fn end_overdue_calls(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        // In the embedded database a row is there as long as its process is.
        let alive_since = if self.is_embedded() { 0 } else { now.0 };
        let overdue: Vec<OverdueRow> = on!(self.db.read(), |pool| {
            sqlx::query_as(OVERDUE).bind(now.0).bind(alive_since).bind(AT_ONCE).fetch_all(pool).await
        })?;
        let count = overdue.len() as u64;
        let ends = overdue.into_iter().map(|row| self.end_call(row.end(now)));
        for ended in futures_util::future::join_all(ends).await {
            ended?;
        }
        Ok(count)
    }
}
