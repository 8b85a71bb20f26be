//! The ledger's rows: charges, refunds and corrections. Rows are only ever added; a repeated one is the same row.

use std::collections::HashSet;

use aig_domain::caps::Payer;
use aig_domain::{Millis, Nano};

use crate::StoreError;
use crate::db::{Tx, on};
use crate::sql::{Rows, with_blanks};

/// One row.
pub(crate) struct LedgerRow {
    /// The job or chat call.
    pub(crate) subject: String,
    /// `charge`, `refund` or `adjust`.
    pub(crate) kind: &'static str,
    /// What makes a repetition the same row; empty for the one charge.
    pub(crate) reference: String,
    pub(crate) payer: Payer,
    /// Such as 202611.
    pub(crate) period: i64,
    pub(crate) amount: Nano,
    pub(crate) at: Millis,
}

impl LedgerRow {
    /// The one charge of `subject`.
    pub(crate) fn charge(subject: &str, payer: Payer, period: i64, amount: Nano, at: Millis) -> Self {
        Self { subject: subject.to_owned(), kind: "charge", reference: String::new(), payer, period, amount, at }
    }
}

static INSERT: Rows = Rows::new(
    "INSERT INTO ledger (subject, kind, ref, account_id, sub_account_id, key_id, tag, period, amount, created_at) \
     SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10 FROM (VALUES ",
    &["TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT"],
    ") AS v WHERE column1 IS NOT NULL ON CONFLICT (subject, kind, ref) DO NOTHING RETURNING subject",
);

/// Adds rows; gives the subjects of those that are new.
pub(crate) async fn insert_charges(tx: &mut Tx, rows: &[LedgerRow]) -> Result<HashSet<String>, StoreError> {
    let mut new = HashSet::with_capacity(rows.len());
    for piece in with_blanks(rows) {
        let written: Vec<String> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_scalar(INSERT.sql(piece.len()));
            for row in piece {
                let payer = row.map(|row| &row.payer);
                query = query
                    .bind(row.map(|row| &row.subject))
                    .bind(row.map(|row| row.kind))
                    .bind(row.map(|row| &row.reference))
                    .bind(payer.map(|payer| &payer.account_id))
                    .bind(payer.and_then(|payer| payer.sub_account_id.as_ref()))
                    .bind(payer.map(|payer| &payer.key_id))
                    .bind(payer.and_then(|payer| payer.tag.as_ref()))
                    .bind(row.map(|row| row.period))
                    .bind(row.map(|row| row.amount.0))
                    .bind(row.map(|row| row.at.0));
            }
            query.fetch_all(c).await
        })?;
        new.extend(written);
    }
    Ok(new)
}
