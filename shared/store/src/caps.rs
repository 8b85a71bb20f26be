//! Caps: those of keys and sub-accounts, which are written with their owners, and those of an account and its tags, which are
//! things of their own, called budgets.

use aig_domain::caps::Scope;
use aig_domain::tenant::Change;
use aig_domain::{Millis, Nano};
use sqlx::FromRow;

use crate::db::{Tx, on};
use crate::page::{Page, page};
use crate::{Store, StoreError};

/// The cap of a tag, or of the whole account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `bud_…`
    pub id: String,
    /// The tag; `None` for the whole account.
    pub tag: Option<String>,
    /// The most that its requests may cost in a calendar month.
    pub cap: Nano,
    /// When it was made.
    pub created_at: Millis,
    /// When its cap was last set.
    pub updated_at: Millis,
}

#[derive(FromRow)]
struct BudgetRow {
    id: Option<String>,
    tag: Option<String>,
    cap: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<BudgetRow> for Budget {
    type Error = StoreError;

    fn try_from(row: BudgetRow) -> Result<Self, StoreError> {
        let id = row.id.ok_or_else(|| StoreError::Corrupt("a budget without an id".into()))?;
        Ok(Self {
            id,
            tag: row.tag,
            cap: Nano(row.cap),
            created_at: Millis(row.created_at),
            updated_at: Millis(row.updated_at),
        })
    }
}

const SET: &str = "INSERT INTO caps (scope, account_id, cap, created_at, updated_at) VALUES ($1, $2, $3, $4, $4) \
    ON CONFLICT (scope) DO UPDATE SET cap = excluded.cap, updated_at = excluded.updated_at";
const PUT: &str = "INSERT INTO caps (scope, id, account_id, tag, cap, created_at, updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $6) \
    ON CONFLICT (scope) DO UPDATE SET id = COALESCE(caps.id, excluded.id), cap = excluded.cap, updated_at = excluded.updated_at \
    RETURNING id, tag, cap, created_at, updated_at";
const PAGE: &str = "SELECT id, tag, cap, created_at, updated_at FROM caps WHERE account_id = $1 AND id IS NOT NULL \
    AND (created_at < $2 OR (created_at = $2 AND id < $3)) ORDER BY created_at DESC, id DESC LIMIT $4";
const CREATED_AT: &str = "SELECT created_at FROM caps WHERE id = $1 AND account_id = $2";
const UPDATE: &str = "UPDATE caps SET cap = $3, updated_at = $4 WHERE id = $1 AND account_id = $2 \
    RETURNING id, tag, cap, created_at, updated_at";
const DELETE: &str = "DELETE FROM caps WHERE id = $1 AND account_id = $2";

impl Store {
    /// Caps an account and all below it, or what carries `tag` there, or replaces that cap. `id` is for a new budget; whether
    /// it is new is what comes second.
    pub async fn put_budget(
        &self,
        account_id: &str,
        id: &str,
        tag: Option<&str>,
        cap: Nano,
    ) -> Result<(Budget, bool), StoreError> {
        let row: BudgetRow = on!(self.db.write(), |pool| {
            sqlx::query_as(PUT)
                .bind(tag.map_or_else(|| account_id.to_owned(), |tag| Scope::tag(account_id, tag).id))
                .bind(id)
                .bind(account_id)
                .bind(tag)
                .bind(cap.0)
                .bind(self.clock.now().0)
                .fetch_one(pool)
                .await
        })?;
        let budget = Budget::try_from(row)?;
        let is_new = budget.id == id;
        Ok((budget, is_new))
    }

    /// At most `limit` budgets of an account, newest first, older than `after`; `None` when that is not one of them.
    pub async fn budgets(
        &self,
        account_id: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Page<Budget>>, StoreError> {
        page!(self, BudgetRow, PAGE, CREATED_AT, account_id, after, limit)
    }

    /// Sets the cap of a budget; `None` when the account has no such budget.
    pub async fn update_budget(&self, account_id: &str, id: &str, cap: Nano) -> Result<Option<Budget>, StoreError> {
        let row: Option<BudgetRow> = on!(self.db.write(), |pool| {
            let query = sqlx::query_as(UPDATE).bind(id).bind(account_id).bind(cap.0);
            query.bind(self.clock.now().0).fetch_optional(pool).await
        })?;
        row.map(Budget::try_from).transpose()
    }

    /// Ends a budget; `false` when the account has no such budget.
    pub async fn delete_budget(&self, account_id: &str, id: &str) -> Result<bool, StoreError> {
        let deleted = on!(self.db.write(), |pool| {
            sqlx::query(DELETE).bind(id).bind(account_id).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(deleted > 0)
    }
}

impl Store {
    /// Sets or ends the cap of an account, sub-account, key or tag. It holds for whatever is admitted from now on.
    pub async fn set_cap(&self, scope: &str, account_id: &str, cap: &Change<Nano>) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        change_cap(&mut tx, scope, account_id, cap, self.clock.now()).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Writes the cap of a key or a sub-account. `account_id` is the account that pays.
pub(crate) async fn change_cap(
    tx: &mut Tx,
    scope: &str,
    account_id: &str,
    cap: &Change<Nano>,
    now: Millis,
) -> Result<(), StoreError> {
    match cap {
        Change::Keep => {}
        Change::Clear => on!(tx.conn(), |c| {
            sqlx::query("DELETE FROM caps WHERE scope = $1").bind(scope).execute(c).await.map(drop)
        })?,
        Change::Set(cap) => on!(tx.conn(), |c| {
            sqlx::query(SET).bind(scope).bind(account_id).bind(cap.0).bind(now.0).execute(c).await.map(drop)
        })?,
    }
    Ok(())
}
