//! Giving back what was charged, wholly or in part: a row in the ledger, in the period of the charge.

use aig_domain::Nano;
use aig_domain::caps::Payer;
use sqlx::FromRow;

use crate::balances::{self, Change, Changes};
use crate::db::on;
use crate::ledger_rows::{LedgerRow, insert_charges};
use crate::payer::PayerRow;
use crate::{Store, StoreError, dialect};

/// What became of [`Store::refund`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refunded {
    /// It was given back.
    Yes,
    /// It was given back before, under the same reference.
    Before,
    /// Only this much of the charge is left.
    TooMuch(Nano),
    /// Nothing was charged for that.
    NoCharge,
}

#[derive(FromRow)]
struct ChargeRow {
    #[sqlx(flatten)]
    payer: PayerRow,
    period: i64,
    amount: i64,
}

const CHARGE: &str = "SELECT account_id, sub_account_id, key_id, tag, period, amount FROM ledger \
    WHERE subject = $1 AND kind = 'charge'";
const REFUNDS: &str = "SELECT ref, amount FROM ledger WHERE subject = $1 AND kind = 'refund'";

impl Store {
    /// Gives back `amount` of what the job or chat call `subject` was charged. The same `reference` gives back once.
    ///
    /// # Errors
    /// When the store fails; the refund may then be asked for again under its reference.
    pub async fn refund(&self, subject: &str, reference: &str, amount: Nano) -> Result<Refunded, StoreError> {
        let mut tx = self.db.begin().await?;
        // The charge stays locked, so that two refunds cannot both find enough left of it.
        let sql = format!("{CHARGE}{}", dialect::for_update(&tx));
        let charge: Option<ChargeRow> =
            on!(tx.conn(), |c| { sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(subject).fetch_optional(c).await })?;
        let Some(charge) = charge else { return Ok(Refunded::NoCharge) };
        let earlier: Vec<(String, i64)> = on!(tx.conn(), |c| sqlx::query_as(REFUNDS).bind(subject).fetch_all(c).await)?;
        if earlier.iter().any(|(known, _)| known == reference) {
            return Ok(Refunded::Before);
        }
        let left = charge.amount - earlier.iter().map(|(_, amount)| amount).sum::<i64>();
        if !(0..=left).contains(&amount.0) {
            return Ok(Refunded::TooMuch(Nano(left)));
        }
        let payer: Payer = charge.payer.into();
        let mut changes = Changes::default();
        changes.add(&payer, charge.period, Change { spent: -amount.0, ..Change::default() });
        let row = LedgerRow {
            subject: subject.to_owned(),
            kind: "refund",
            reference: reference.to_owned(),
            payer,
            period: charge.period,
            amount,
            at: self.clock.now(),
        };
        insert_charges(&mut tx, &[row]).await?;
        balances::apply(&mut tx, &changes).await?;
        tx.commit().await?;
        Ok(Refunded::Yes)
    }
}
