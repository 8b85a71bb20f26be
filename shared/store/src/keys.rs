//! API keys as their owner manages them. What a request with a key may do is read in [`crate::api_key`].

use aig_domain::tenant::{Change, Limits};
use aig_domain::{Millis, Nano};
use sqlx::FromRow;

use crate::accounts::{NewApiKey, Scope};
use crate::caps::change_cap;
use crate::db::on;
use crate::page::{Page, page};
use crate::{Store, StoreError};

/// The most keys that one change is told to, see [`Store::live_keys`].
const MOST_LIVE: i64 = 100;

/// A key to be stored with its limits.
#[derive(Clone, Debug)]
pub struct NewLimitedKey {
    /// The key.
    pub key: NewApiKey,
    /// The account that pays.
    pub payer_id: String,
    /// The sub-account that it is for; else it is the account's own.
    pub sub_account_id: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Its limits.
    pub limits: Limits,
    /// From when on it is not good any more.
    pub expires_at: Option<Millis>,
}

/// A stored key, as its owner may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// `key_…`
    pub id: String,
    /// Whose it is: an account or a sub-account.
    pub account_id: String,
    /// The part of the key that may be shown.
    pub public_id: String,
    /// What people call it.
    pub name: Option<String>,
    /// What it may do.
    pub scope: Scope,
    /// Its limits. Keys that were made from each other by rotation share one cap.
    pub limits: Limits,
    /// When it was made.
    pub created_at: Millis,
    /// From when on it is not good any more.
    pub expires_at: Option<Millis>,
    /// When it was revoked.
    pub revoked_at: Option<Millis>,
    /// The key that dies when this one is first used.
    pub replaces: Option<String>,
}

#[derive(FromRow)]
struct KeyRecordRow {
    id: String,
    account_id: String,
    public_id: String,
    name: Option<String>,
    scope: String,
    cap: Option<i64>,
    rate_limit_rpm: Option<i64>,
    allowed_models: Option<String>,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    replaces: Option<String>,
}

impl TryFrom<KeyRecordRow> for KeyRecord {
    type Error = StoreError;

    fn try_from(row: KeyRecordRow) -> Result<Self, StoreError> {
        Ok(Self {
            scope: Scope::parse(&row.scope)
                .ok_or_else(|| StoreError::Corrupt(format!("key {}: unknown scope", row.id)))?,
            limits: Limits {
                spend_cap: row.cap.map(Nano),
                rate_limit_rpm: row.rate_limit_rpm.map(|rpm| u32::try_from(rpm).unwrap_or(u32::MAX)),
                allowed_models: models_of(&row.id, row.allowed_models.as_deref())?,
            },
            id: row.id,
            account_id: row.account_id,
            public_id: row.public_id,
            name: row.name,
            created_at: Millis(row.created_at),
            expires_at: row.expires_at.map(Millis),
            revoked_at: row.revoked_at.map(Millis),
            replaces: row.replaces,
        })
    }
}

/// The column of a list of models.
pub(crate) fn models_text(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

/// A list of models out of its column.
pub(crate) fn models_of(id: &str, text: Option<&str>) -> Result<Option<Vec<String>>, StoreError> {
    let read = |text| serde_json::from_str(text);
    text.map(read).transpose().map_err(|_| StoreError::Corrupt(format!("{id}: unreadable list of models")))
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT k.id, k.account_id, k.public_id, k.name, k.scope, c.cap, k.rate_limit_rpm, k.allowed_models, \
             k.created_at, k.expires_at, k.revoked_at, k.replaces FROM api_keys k \
             LEFT JOIN caps c ON c.scope = COALESCE(k.budget_id, k.id) WHERE ",
            $rest
        )
    };
}

/// The accounts whose things the account `$2` manages: itself and its sub-accounts.
macro_rules! managed {
    () => {
        "(SELECT id FROM accounts WHERE (id = $2 OR parent_id = $2) AND deleted_at IS NULL)"
    };
}

const OWNER: &str = concat!("SELECT id FROM accounts WHERE id = $1 AND id IN ", managed!());
const INSERT: &str = "INSERT INTO api_keys (id, account_id, public_id, hash, kid, scope, name, allowed_models, \
    rate_limit_rpm, expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const ONE: &str = concat!(select!("k.id = $1 AND k.account_id IN "), managed!());
const PAGE: &str = select!(
    "k.account_id = $1 AND (k.created_at < $2 OR (k.created_at = $2 AND k.id < $3)) \
     ORDER BY k.created_at DESC, k.id DESC LIMIT $4"
);
const CREATED_AT: &str = "SELECT created_at FROM api_keys WHERE id = $1 AND account_id = $2";
const REVOKE: &str =
    concat!("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $3) WHERE id = $1 AND account_id IN ", managed!());
const ROTATE: &str = concat!(
    "INSERT INTO api_keys (id, public_id, hash, kid, created_at, account_id, scope, name, allowed_models, \
     rate_limit_rpm, expires_at, budget_id, replaces) \
     SELECT CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS BIGINT), account_id, scope, \
     name, allowed_models, rate_limit_rpm, expires_at, COALESCE(budget_id, id), id \
     FROM api_keys WHERE id = $1 AND revoked_at IS NULL AND account_id IN ",
    managed!()
);
// Whoever is second finds nothing to do: it waits for this row.
const TAKE_OVER: &str = "UPDATE api_keys SET replaces = NULL WHERE id = $1 AND replaces = $2";
// A key may have been rotated again before it was ever used: then those before it die, too.
const RETIRE: &str = "WITH RECURSIVE old (id) AS (SELECT CAST($1 AS TEXT) \
    UNION SELECT k.replaces FROM api_keys k JOIN old ON k.id = old.id WHERE k.replaces IS NOT NULL) \
    UPDATE api_keys SET revoked_at = $2 WHERE id IN (SELECT id FROM old) AND revoked_at IS NULL RETURNING public_id";
const LIVE: &str = "SELECT public_id FROM api_keys WHERE revoked_at IS NULL AND account_id IN \
    (SELECT id FROM accounts WHERE id = $1 OR parent_id = $1) ORDER BY created_at DESC LIMIT $2";

impl Store {
    /// Stores a key with its cap, in one transaction; `None` when the payer has no such sub-account.
    pub async fn create_key(&self, new: &NewLimitedKey) -> Result<Option<KeyRecord>, StoreError> {
        let (mut tx, now) = (self.db.begin().await?, self.clock.now());
        let (key, owner) = (&new.key, new.sub_account_id.as_ref().unwrap_or(&new.payer_id));
        let found: Option<String> =
            on!(tx.conn(), |c| sqlx::query_scalar(OWNER).bind(owner).bind(&new.payer_id).fetch_optional(c).await)?;
        if found.is_none() {
            tx.rollback().await?;
            return Ok(None);
        }
        on!(tx.conn(), |c| {
            sqlx::query(INSERT)
                .bind(&key.id)
                .bind(owner)
                .bind(&key.public_id)
                .bind(&key.hash)
                .bind(&key.kid)
                .bind(key.scope.as_str())
                .bind(new.name.as_deref())
                .bind(new.limits.allowed_models.as_deref().map(models_text))
                .bind(new.limits.rate_limit_rpm.map(i64::from))
                .bind(new.expires_at.map(|at| at.0))
                .bind(now.0)
                .execute(c)
                .await
                .map(drop)
        })?;
        let cap = new.limits.spend_cap.map_or(Change::Keep, Change::Set);
        change_cap(&mut tx, &key.id, &new.payer_id, &cap, now).await?;
        tx.commit_or_unknown().await?;
        Ok(Some(KeyRecord {
            id: key.id.clone(),
            account_id: owner.clone(),
            public_id: key.public_id.clone(),
            name: new.name.clone(),
            scope: key.scope,
            limits: new.limits.clone(),
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
            replaces: None,
        }))
    }

    /// The key `id` of `payer_id` or one of its sub-accounts; `None` when there is none.
    pub async fn key(&self, payer_id: &str, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        let row: Option<KeyRecordRow> =
            on!(self.db.read(), |pool| sqlx::query_as(ONE).bind(id).bind(payer_id).fetch_optional(pool).await)?;
        row.map(KeyRecord::try_from).transpose()
    }

    /// At most `limit` keys of an account or a sub-account, newest first, older than `after`; `None` when that is not one of
    /// them. Revoked ones are among them.
    pub async fn keys(
        &self,
        owner_id: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Page<KeyRecord>>, StoreError> {
        page!(self, KeyRecordRow, PAGE, CREATED_AT, owner_id, after, limit)
    }

    /// Revokes a key, if it is not yet; `None` when there is none.
    pub async fn revoke_key(&self, payer_id: &str, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        on!(self.db.write(), |pool| {
            let query = sqlx::query(REVOKE).bind(id).bind(payer_id).bind(self.clock.now().0);
            query.execute(pool).await.map(drop)
        })?;
        self.key(payer_id, id).await
    }

    /// Stores `new` with the settings, the owner and the budget of the key `id`, which dies when `new` is first used; `None`
    /// when there is no such key, or it is revoked.
    pub async fn rotate_key(&self, payer_id: &str, id: &str, new: &NewApiKey) -> Result<Option<KeyRecord>, StoreError> {
        let inserted = on!(self.db.write(), |pool| {
            sqlx::query(ROTATE)
                .bind(id)
                .bind(payer_id)
                .bind(&new.id)
                .bind(&new.public_id)
                .bind(&new.hash)
                .bind(&new.kid)
                .bind(self.clock.now().0)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })?;
        if inserted == 0 { Ok(None) } else { self.key(payer_id, &new.id).await }
    }

    /// Revokes what `key_id` replaces, since that is now used. Gives the public ids of the keys that died; none when another
    /// process was first.
    pub async fn retire_replaced(&self, key_id: &str, replaces: &str) -> Result<Vec<String>, StoreError> {
        let mut tx = self.db.begin().await?;
        let first = on!(tx.conn(), |c| {
            let query = sqlx::query(TAKE_OVER).bind(key_id).bind(replaces);
            query.execute(c).await.map(|done| done.rows_affected())
        })?;
        if first == 0 {
            tx.rollback().await?;
            return Ok(Vec::new());
        }
        let died: Vec<String> = on!(tx.conn(), |c| {
            sqlx::query_scalar(RETIRE).bind(replaces).bind(self.clock.now().0).fetch_all(c).await
        })?;
        tx.commit().await?;
        Ok(died)
    }

    /// The public ids of the latest keys of an account and its sub-accounts, or of a sub-account, that are not revoked: at most
    /// 100, for who tells others of a change.
    pub async fn live_keys(&self, account_id: &str) -> Result<Vec<String>, StoreError> {
        Ok(on!(self.db.read(), |pool| {
            sqlx::query_scalar(LIVE).bind(account_id).bind(MOST_LIVE).fetch_all(pool).await
        })?)
    }
}
