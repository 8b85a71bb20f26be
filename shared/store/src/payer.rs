//! Who pays, as columns that several tables have.

use aig_domain::caps::Payer;
use sqlx::FromRow;

/// The columns `account_id`, `sub_account_id`, `key_id` and `tag` of a row.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct PayerRow {
    account_id: String,
    sub_account_id: Option<String>,
    key_id: String,
    tag: Option<String>,
}

impl From<PayerRow> for Payer {
    fn from(row: PayerRow) -> Self {
        Self { account_id: row.account_id, sub_account_id: row.sub_account_id, key_id: row.key_id, tag: row.tag }
    }
}
