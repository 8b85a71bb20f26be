//! Sub-accounts: accounts with a parent that pays for them and sees all they have.

use aig_domain::tenant::{Change, Limits};
use aig_domain::{Millis, Nano};
use sqlx::FromRow;

use crate::accounts::{NewApiKey, insert_key};
use crate::caps::change_cap;
use crate::db::{Tx, on};
use crate::keys::{models_of, models_text};
use crate::page::{Page, page};
use crate::{Store, StoreError};

/// A sub-account to be stored with its first key.
#[derive(Clone, Debug)]
pub struct NewSubAccount {
    /// `sa_…`
    pub id: String,
    /// The account that pays; not a sub-account itself.
    pub parent_id: String,
    /// What people call it.
    pub name: String,
    /// What its parent calls it.
    pub external_ref: Option<String>,
    /// The label of requests that carry none.
    pub default_tag: Option<String>,
    /// Its limits.
    pub limits: Limits,
    /// The webhook secret, sealed for the sub-account's id.
    pub webhook_secret: String,
    /// Its key.
    pub key: NewApiKey,
}

/// A sub-account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAccount {
    /// `sa_…`
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What its parent calls it.
    pub external_ref: Option<String>,
    /// The label of requests that carry none.
    pub default_tag: Option<String>,
    /// Its limits.
    pub limits: Limits,
    /// When it was made.
    pub created_at: Millis,
}

/// What is to change about a sub-account.
#[derive(Clone, Debug, Default)]
pub struct SubAccountChange {
    /// A new name.
    pub name: Option<String>,
    /// What its parent calls it.
    pub external_ref: Change<String>,
    /// The label of requests that carry none.
    pub default_tag: Change<String>,
    /// The most that may be spent in a calendar month.
    pub spend_cap: Change<Nano>,
    /// Requests per minute.
    pub rate_limit_rpm: Change<u32>,
    /// Ids of models, `*` standing for anything.
    pub allowed_models: Change<Vec<String>>,
}

#[derive(FromRow)]
struct SubAccountRow {
    id: String,
    name: String,
    external_ref: Option<String>,
    default_tag: Option<String>,
    cap: Option<i64>,
    rate_limit_rpm: Option<i64>,
    allowed_models: Option<String>,
    created_at: i64,
}

impl TryFrom<SubAccountRow> for SubAccount {
    type Error = StoreError;

    fn try_from(row: SubAccountRow) -> Result<Self, StoreError> {
        Ok(Self {
            limits: Limits {
                spend_cap: row.cap.map(Nano),
                rate_limit_rpm: row.rate_limit_rpm.map(|rpm| u32::try_from(rpm).unwrap_or(u32::MAX)),
                allowed_models: models_of(&row.id, row.allowed_models.as_deref())?,
            },
            id: row.id,
            name: row.name,
            external_ref: row.external_ref,
            default_tag: row.default_tag,
            created_at: Millis(row.created_at),
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT a.id, a.name, a.external_ref, a.default_tag, c.cap, a.rate_limit_rpm, a.allowed_models, \
             a.created_at FROM accounts a LEFT JOIN caps c ON c.scope = a.id WHERE a.deleted_at IS NULL AND ",
            $rest
        )
    };
}

const INSERT: &str = "INSERT INTO accounts (id, parent_id, name, tier, external_ref, default_tag, rate_limit_rpm, \
    allowed_models, webhook_secret, created_at) \
    SELECT CAST($2 AS TEXT), id, CAST($3 AS TEXT), tier, CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS BIGINT), \
    CAST($7 AS TEXT), CAST($8 AS TEXT), CAST($9 AS BIGINT) \
    FROM accounts WHERE id = $1 AND parent_id IS NULL AND deleted_at IS NULL";
const ONE: &str = select!("a.id = $1 AND a.parent_id = $2");
const PAGE: &str = select!(
    "a.parent_id = $1 AND (a.created_at < $2 OR (a.created_at = $2 AND a.id < $3)) \
     ORDER BY a.created_at DESC, a.id DESC LIMIT $4"
);
const CREATED_AT: &str = "SELECT created_at FROM accounts WHERE id = $1 AND parent_id = $2 AND deleted_at IS NULL";
const UPDATE: &str = "UPDATE accounts SET name = COALESCE($3, name), \
    external_ref = CASE WHEN $4 THEN external_ref ELSE $5 END, \
    default_tag = CASE WHEN $6 THEN default_tag ELSE $7 END, \
    rate_limit_rpm = CASE WHEN $8 THEN rate_limit_rpm ELSE $9 END, \
    allowed_models = CASE WHEN $10 THEN allowed_models ELSE $11 END \
    WHERE id = $1 AND parent_id = $2 AND deleted_at IS NULL";
const DELETE: &str = "UPDATE accounts SET deleted_at = $3 WHERE id = $1 AND parent_id = $2 AND deleted_at IS NULL";
const END_KEYS: &str =
    "UPDATE api_keys SET revoked_at = $2 WHERE account_id = $1 AND revoked_at IS NULL RETURNING public_id";

impl Store {
    /// Stores a sub-account with its key and its cap, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the parent is no account that may have sub-accounts.
    pub async fn create_sub_account(&self, new: &NewSubAccount) -> Result<SubAccount, StoreError> {
        let (mut tx, now) = (self.db.begin().await?, self.clock.now());
        let inserted = on!(tx.conn(), |c| {
            sqlx::query(INSERT)
                .bind(&new.parent_id)
                .bind(&new.id)
                .bind(&new.name)
                .bind(new.external_ref.as_deref())
                .bind(new.default_tag.as_deref())
                .bind(new.limits.rate_limit_rpm.map(i64::from))
                .bind(new.limits.allowed_models.as_deref().map(models_text))
                .bind(&new.webhook_secret)
                .bind(now.0)
                .execute(c)
                .await
                .map(|done| done.rows_affected())
        })?;
        if inserted == 0 {
            tx.rollback().await?;
            return Err(StoreError::Corrupt(format!("account {} cannot have sub-accounts", new.parent_id)));
        }
        insert_key(&mut tx, &new.id, &new.key, now).await?;
        let cap = new.limits.spend_cap.map_or(Change::Keep, Change::Set);
        change_cap(&mut tx, &new.id, &new.parent_id, &cap, now).await?;
        tx.commit_or_unknown().await?;
        Ok(SubAccount {
            id: new.id.clone(),
            name: new.name.clone(),
            external_ref: new.external_ref.clone(),
            default_tag: new.default_tag.clone(),
            limits: new.limits.clone(),
            created_at: now,
        })
    }

    /// The sub-account `id` of `parent_id`; `None` when there is none, or it was deleted.
    pub async fn sub_account(&self, parent_id: &str, id: &str) -> Result<Option<SubAccount>, StoreError> {
        let row: Option<SubAccountRow> =
            on!(self.db.read(), |pool| { sqlx::query_as(ONE).bind(id).bind(parent_id).fetch_optional(pool).await })?;
        row.map(SubAccount::try_from).transpose()
    }

    /// At most `limit` sub-accounts, newest first, older than `after`; `None` when that is not one of them.
    pub async fn sub_accounts(
        &self,
        parent_id: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Page<SubAccount>>, StoreError> {
        page!(self, SubAccountRow, PAGE, CREATED_AT, parent_id, after, limit)
    }

    /// Changes a sub-account and its cap, in one transaction; `None` when there is none.
    pub async fn update_sub_account(
        &self,
        parent_id: &str,
        id: &str,
        change: &SubAccountChange,
    ) -> Result<Option<SubAccount>, StoreError> {
        let mut tx = self.db.begin().await?;
        let found = on!(tx.conn(), |c| {
            sqlx::query(UPDATE)
                .bind(id)
                .bind(parent_id)
                .bind(change.name.as_deref())
                .bind(change.external_ref.is_keep())
                .bind(change.external_ref.value())
                .bind(change.default_tag.is_keep())
                .bind(change.default_tag.value())
                .bind(change.rate_limit_rpm.is_keep())
                .bind(change.rate_limit_rpm.value().copied().map(i64::from))
                .bind(change.allowed_models.is_keep())
                .bind(change.allowed_models.value().map(|list| models_text(list)))
                .execute(c)
                .await
                .map(|done| done.rows_affected())
        })?;
        if found == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        change_cap(&mut tx, id, parent_id, &change.spend_cap, self.clock.now()).await?;
        let changed = in_tx(&mut tx, parent_id, id).await?;
        tx.commit_or_unknown().await?;
        Ok(changed)
    }

    /// Deletes a sub-account: it is not seen any more, and its keys are dead. Gives the public ids of those keys; `None` when
    /// there is no such sub-account. Its jobs stay, and those under way are finished and paid for.
    pub async fn delete_sub_account(&self, parent_id: &str, id: &str) -> Result<Option<Vec<String>>, StoreError> {
        let (mut tx, now) = (self.db.begin().await?, self.clock.now());
        let found = on!(tx.conn(), |c| {
            let query = sqlx::query(DELETE).bind(id).bind(parent_id).bind(now.0);
            query.execute(c).await.map(|done| done.rows_affected())
        })?;
        if found == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        let keys: Vec<String> =
            on!(tx.conn(), |c| sqlx::query_scalar(END_KEYS).bind(id).bind(now.0).fetch_all(c).await)?;
        tx.commit_or_unknown().await?;
        Ok(Some(keys))
    }
}

async fn in_tx(tx: &mut Tx, parent_id: &str, id: &str) -> Result<Option<SubAccount>, StoreError> {
    let row: Option<SubAccountRow> =
        on!(tx.conn(), |c| sqlx::query_as(ONE).bind(id).bind(parent_id).fetch_optional(c).await)?;
    row.map(SubAccount::try_from).transpose()
}
