//! Reservations as rows: the promise of an amount in every scope of its payer, and its one end.
//!
//! `held → settled | released | uncertain`, and `uncertain → settled | released` when word comes late. Whoever ends a reservation
//! that has ended changes nothing, so that each is charged at most once, whatever is repeated.

use std::collections::HashMap;

use aig_domain::caps::Payer;
use aig_domain::{Millis, Month, Nano};
use sqlx::FromRow;

use crate::StoreError;
use crate::balances::{Change, Changes};
use crate::db::{Tx, on};
use crate::ledger_rows::{LedgerRow, insert_charges};
use crate::sql::{Rows, padded, with_blanks};

/// A reservation to be written.
pub(crate) struct NewReservation<'a> {
    /// The job's id, or the request's.
    pub(crate) id: &'a str,
    /// `job` or `chat`.
    pub(crate) kind: &'static str,
    pub(crate) payer: &'a Payer,
    pub(crate) amount: Nano,
    /// The prices it was made with, as JSON.
    pub(crate) price: Option<&'a str>,
    pub(crate) created_at: Millis,
    /// When nobody will say any more how it ended; jobs have none.
    pub(crate) expires_at: Option<Millis>,
    /// The process that makes the call.
    pub(crate) owner: Option<&'a str>,
    /// The model's full id, and its provider's name.
    pub(crate) model: &'a str,
    pub(crate) provider: &'a str,
}

impl NewReservation<'_> {
    pub(crate) fn month(&self) -> Month {
        Month::of(self.created_at)
    }
}

static INSERT: Rows = Rows::new(
    "INSERT INTO reservations (id, account_id, amount, created_at, state, sub_account_id, key_id, tag, period, kind, price, \
     expires_at, owner, model, provider) SELECT column1, column2, column3, column4, 'held', column5, column6, column7, column8, \
     column9, column10, column11, column12, column13, column14 FROM (VALUES ",
    &[
        "TEXT", "TEXT", "BIGINT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "TEXT", "TEXT", "BIGINT", "TEXT", "TEXT",
        "TEXT",
    ],
    ") AS v WHERE column1 IS NOT NULL",
);

/// Writes reservations that were admitted, and adds to `changes` what they hold.
pub(crate) async fn insert(tx: &mut Tx, new: &[NewReservation<'_>], changes: &mut Changes) -> Result<(), StoreError> {
    for piece in with_blanks(new) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT.sql(piece.len()));
            for new in piece {
                let payer = new.map(|new| new.payer);
                query = query
                    .bind(new.map(|new| new.id))
                    .bind(payer.map(|payer| &payer.account_id))
                    .bind(new.map(|new| new.amount.0))
                    .bind(new.map(|new| new.created_at.0))
                    .bind(payer.and_then(|payer| payer.sub_account_id.as_ref()))
                    .bind(payer.map(|payer| &payer.key_id))
                    .bind(payer.and_then(|payer| payer.tag.as_ref()))
                    .bind(new.map(|new| new.month().number()))
                    .bind(new.map(|new| new.kind))
                    .bind(new.and_then(|new| new.price))
                    .bind(new.and_then(|new| new.expires_at.map(|at| at.0)))
                    .bind(new.and_then(|new| new.owner))
                    .bind(new.map(|new| new.model))
                    .bind(new.map(|new| new.provider));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    for new in new {
        changes.add(new.payer, new.month().number(), Change { held: new.amount.0, ..Change::default() });
    }
    Ok(())
}

/// How a reservation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoneyEnd {
    /// This was used and is charged.
    Charge(Nano),
    /// This much is known to have been used, and is charged; how much more of the reservation may be billed upstream is not
    /// known. The rest stays uncertain.
    AtLeast(Nano),
    /// Nothing was used.
    Release,
    /// It may have been billed upstream. Never charged; counted against the caps until the period ends.
    Uncertain,
}

impl MoneyEnd {
    fn state(self) -> &'static str {
        match self {
            Self::Charge(_) | Self::AtLeast(_) => "settled",
            Self::Release => "released",
            Self::Uncertain => "uncertain",
        }
    }

    /// What is charged.
    pub fn charge(self) -> Nano {
        if let Self::Charge(amount) | Self::AtLeast(amount) = self { amount } else { Nano::ZERO }
    }

    /// What stays uncertain of a reservation of `amount` that is charged.
    fn doubt(self, amount: i64) -> i64 {
        if let Self::AtLeast(charge) = self { (amount - charge.0).max(0) } else { 0 }
    }

    /// How much it says: of several ends of one batch, the one that says most counts.
    fn weight(self) -> u8 {
        match self {
            Self::Uncertain => 0,
            Self::Release => 1,
            Self::AtLeast(_) => 2,
            Self::Charge(_) => 3,
        }
    }
}

/// The end of one reservation.
pub(crate) struct Ending<'a> {
    pub(crate) id: &'a str,
    pub(crate) end: MoneyEnd,
    pub(crate) at: Millis,
}

/// A reservation under lock.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ReservationRow {
    pub(crate) id: String,
    pub(crate) account_id: String,
    pub(crate) sub_account_id: Option<String>,
    pub(crate) key_id: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) period: Option<i64>,
    pub(crate) amount: i64,
    pub(crate) state: String,
    pub(crate) price: Option<String>,
}

impl ReservationRow {
    /// Who pays, and in which period; `None` for a row from before there was money.
    pub(crate) fn payer(&self) -> Option<(Payer, i64)> {
        let payer = Payer {
            account_id: self.account_id.clone(),
            sub_account_id: self.sub_account_id.clone(),
            key_id: self.key_id.clone()?,
            tag: self.tag.clone(),
        };
        Some((payer, self.period?))
    }
}

const LOCK_HEAD: &str = "SELECT id, account_id, sub_account_id, key_id, tag, period, amount, state, price \
     FROM reservations WHERE id IN (";
static READ: Rows = Rows::new(LOCK_HEAD, &["TEXT"], ") ORDER BY id");
static LOCK: Rows = Rows::new(LOCK_HEAD, &["TEXT"], ") ORDER BY id FOR UPDATE");
static END: Rows = Rows::new(
    "WITH v (id, state, now, charged, doubt) AS (VALUES ",
    &["TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT"],
    // Which of them may still end was decided under their locks; a condition on the state would offer the planner an index that
    // lists everything that is held.
    ") UPDATE reservations SET state = v.state, ended_at = v.now, charged = v.charged, doubt = v.doubt \
     FROM v WHERE reservations.id = v.id",
);

/// Reads reservations by id and keeps them locked.
pub(crate) async fn lock(tx: &mut Tx, ids: &[&str]) -> Result<HashMap<String, ReservationRow>, StoreError> {
    let statement = if matches!(tx, Tx::Sqlite(_)) { &READ } else { &LOCK };
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let mut found = HashMap::with_capacity(ids.len());
    for piece in padded(&sorted) {
        let rows: Vec<ReservationRow> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(statement.sql(piece.len()));
            for id in piece {
                query = query.bind(*id);
            }
            query.fetch_all(c).await
        })?;
        found.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
    }
    Ok(found)
}

/// A reservation that ended: how it stood before, and which of its ends counted.
pub(crate) struct Ended {
    pub(crate) row: ReservationRow,
    pub(crate) end: MoneyEnd,
}

/// Ends reservations, charges what is to be charged, and adds to `sums` what that moves. Gives the reservations that
/// changed, as they were before; those that had ended are left out. Of two ends of one reservation in one batch, the one that says
/// more counts: a charge must not be lost to a sweep beside it.
pub(crate) async fn end(
    tx: &mut Tx,
    endings: &[Ending<'_>],
    sums: &mut Changes,
) -> Result<HashMap<String, Ended>, StoreError> {
    if endings.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<&str> = endings.iter().map(|ending| ending.id).collect();
    let mut open = lock(tx, &ids).await?;
    let mut ended: HashMap<String, Ended> = HashMap::new();
    let mut written: Vec<(&Ending<'_>, i64)> = Vec::with_capacity(endings.len());
    let mut ledger = Vec::new();
    let mut by_weight: Vec<&Ending<'_>> = endings.iter().collect();
    by_weight.sort_by_key(|ending| std::cmp::Reverse(ending.end.weight()));
    for ending in by_weight {
        let Some(row) = open.remove(ending.id) else { continue };
        let moves = match (row.state.as_str(), ending.end) {
            ("held", _) => true,
            ("uncertain", end) => end != MoneyEnd::Uncertain,
            _ => false,
        };
        if !moves {
            continue;
        }
        let doubt = ending.end.doubt(row.amount);
        if let Some((payer, period)) = row.payer() {
            let amount = row.amount;
            let mut change = if row.state == "held" {
                Change { held: -amount, ..Change::default() }
            } else {
                Change { uncertain: -amount, ..Change::default() }
            };
            match ending.end {
                MoneyEnd::Charge(cost) | MoneyEnd::AtLeast(cost) => {
                    change.spent = cost.0;
                    change.requests = 1;
                    change.uncertain += doubt;
                    ledger.push(LedgerRow::charge(ending.id, payer.clone(), period, cost, ending.at));
                    note_overrun(cost.0 - amount);
                }
                MoneyEnd::Release => {}
                MoneyEnd::Uncertain => change.uncertain = amount,
            }
            sums.add(&payer, period, change);
        }
        ended.insert(row.id.clone(), Ended { row, end: ending.end });
        written.push((ending, doubt));
    }
    written.sort_by(|(a, _), (b, _)| a.id.cmp(b.id));
    for piece in padded(&written) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(END.sql(piece.len()));
            for (ending, doubt) in piece {
                let charged = (ending.end.state() == "settled").then(|| ending.end.charge().0);
                query = query.bind(ending.id).bind(ending.end.state()).bind(ending.at.0).bind(charged).bind(doubt);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    insert_charges(tx, &ledger).await?;
    Ok(ended)
}

/// A provider that used more than it was allowed to: all of it is charged, and the caps stop what comes next.
fn note_overrun(over: i64) {
    if let Ok(over @ 1..) = u64::try_from(over) {
        tracing::warn!(over_nano = over, "a provider used more than was reserved");
        metrics::counter!("aig_budget_overrun_nano_total").increment(over);
    }
}
