//! Caps of scopes, and how a scope stands.

use aig_domain::caps::Balance;
use aig_domain::{Month, Nano};

use crate::db::on;
use crate::{Store, StoreError};

const SET: &str = "INSERT INTO caps (scope, account_id, cap, created_at, updated_at) VALUES ($1, $2, $3, $4, $4) \
    ON CONFLICT (scope) DO UPDATE SET cap = excluded.cap, updated_at = excluded.updated_at";
const DROP: &str = "DELETE FROM caps WHERE scope = $1";
const STANDS: &str = "SELECT spent, held, uncertain FROM budget_periods WHERE scope = $1 AND period = $2";
const CAP: &str = "SELECT cap FROM caps WHERE scope = $1";

impl Store {
    /// Gives a scope of `account_id` a cap, or takes it away. It holds for whatever is admitted from now on.
    pub async fn set_cap_of_scope(&self, scope: &str, account_id: &str, cap: Option<Nano>) -> Result<(), StoreError> {
        let now = self.clock.now();
        on!(self.db.write(), |pool| {
            match cap {
                Some(cap) => sqlx::query(SET).bind(scope).bind(account_id).bind(cap.0).bind(now.0),
                None => sqlx::query(DROP).bind(scope),
            }
            .execute(pool)
            .await
            .map(drop)
        })?;
        Ok(())
    }

    /// How a scope stands in `month`.
    pub async fn balance(&self, scope: &str, month: Month) -> Result<Balance, StoreError> {
        let row: Option<(i64, i64, i64)> = on!(self.db.read(), |pool| {
            sqlx::query_as(STANDS).bind(scope).bind(month.number()).fetch_optional(pool).await
        })?;
        let cap: Option<i64> =
            on!(self.db.read(), |pool| sqlx::query_scalar(CAP).bind(scope).fetch_optional(pool).await)?;
        let (spent, held, uncertain) = row.unwrap_or_default();
        Ok(Balance { cap: cap.map(Nano), spent: Nano(spent), held: Nano(held), uncertain: Nano(uncertain) })
    }
}
