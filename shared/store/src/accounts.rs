//! Accounts, their API keys and webhook secrets, and the fingerprint of the installation's secret key.

use std::collections::HashMap;

use aig_domain::Millis;
use sqlx::FromRow;

use crate::db::{Db, Tx, on};
use crate::sql::{Rows, padded};
use crate::{Store, StoreError};

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything an application needs.
    Standard,
    /// That, and the operator's pages.
    Admin,
}

impl Scope {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Standard, Self::Admin].into_iter().find(|scope| scope.as_str() == word)
    }
}

/// A key to be stored, without its text.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// `key_…`
    pub id: String,
    /// The part that finds it.
    pub public_id: String,
    /// The HMAC of the whole key, hex.
    pub hash: String,
    /// Under which secret key's pepper.
    pub kid: String,
    /// What it may do.
    pub scope: Scope,
}

/// An account to be stored with its keys.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// `acc_…`
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Such as `unlimited`.
    pub tier: String,
    /// The webhook secret, sealed for the account's id.
    pub webhook_secret: String,
    /// Its keys.
    pub keys: Vec<NewApiKey>,
}

/// The sealed webhook secrets of an account.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct WebhookSecrets {
    /// The one that signs.
    #[sqlx(rename = "webhook_secret")]
    pub current: String,
    /// The one before, while its time of grace lasts.
    #[sqlx(rename = "webhook_secret_previous")]
    pub previous: Option<String>,
    /// Until when the one before signs too, Unix milliseconds.
    #[sqlx(rename = "webhook_secret_previous_until")]
    pub previous_until: Option<i64>,
}

const FIRST: &str = "INSERT INTO settings (name, value) VALUES ('first_account', $1) ON CONFLICT DO NOTHING \
    RETURNING value";
const INSERT_ACCOUNT: &str =
    "INSERT INTO accounts (id, name, tier, webhook_secret, created_at) VALUES ($1, $2, $3, $4, $5)";
const INSERT_KEY: &str = "INSERT INTO api_keys (id, account_id, public_id, hash, kid, scope, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
static SECRETS_OF: Rows = Rows::new(
    "SELECT id, webhook_secret, webhook_secret_previous, webhook_secret_previous_until FROM accounts WHERE id IN (",
    &["TEXT"],
    ")",
);
const SECRETS: &str =
    "SELECT webhook_secret, webhook_secret_previous, webhook_secret_previous_until FROM accounts WHERE id = $1";
const ROTATE: &str = "UPDATE accounts SET webhook_secret_previous = CASE WHEN $3 > 0 THEN webhook_secret END, \
    webhook_secret_previous_until = CASE WHEN $3 > 0 THEN $3 END, webhook_secret = $2 WHERE id = $1";

impl Store {
    /// Whether the first account exists.
    pub async fn has_account(&self) -> Result<bool, StoreError> {
        let found: Option<String> = on!(self.db.read(), |pool| {
            sqlx::query_scalar("SELECT value FROM settings WHERE name = 'first_account'").fetch_optional(pool).await
        })?;
        Ok(found.is_some())
    }

    /// Stores the first account with its keys, in one transaction. `false` when there is one already: then nothing was
    /// written, also when two processes try at the same time.
    pub async fn create_first_account(&self, account: &NewAccount) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let first: Option<String> =
            on!(tx.conn(), |c| sqlx::query_scalar(FIRST).bind(&account.id).fetch_optional(c).await)?;
        if first.is_none() {
            return Ok(false);
        }
        insert_account(&mut tx, account, self.clock.now()).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Stores a further account with its keys.
    pub async fn create_account(&self, account: &NewAccount) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        insert_account(&mut tx, account, self.clock.now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The sealed webhook secrets of an account.
    pub async fn webhook_secrets(&self, account_id: &str) -> Result<WebhookSecrets, StoreError> {
        let found = webhook_secrets(&self.db, account_id).await?;
        found.ok_or_else(|| StoreError::Corrupt(format!("account {account_id} is gone")))
    }

    /// Replaces the webhook secret. With `grace_until` the old one signs too until then, else it ends at once.
    pub async fn rotate_webhook_secret(
        &self,
        account_id: &str,
        sealed: &str,
        grace_until: Option<Millis>,
    ) -> Result<(), StoreError> {
        on!(self.db.write(), |pool| {
            sqlx::query(ROTATE)
                .bind(account_id)
                .bind(sealed)
                .bind(grace_until.map_or(0, |until| until.0))
                .execute(pool)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// Holds the (kid, fingerprint) pairs of this process's secret keys against those the database was made with, and
    /// records new ones.
    ///
    /// # Errors
    /// [`StoreError::OtherSecretKey`] when a kid is known with another fingerprint, or none of the pairs is known to a
    /// database that has some.
    pub async fn check_secret_keys(&self, pairs: &[(String, String)]) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let known: Vec<(String, String)> =
            on!(tx.conn(), |c| sqlx::query_as("SELECT kid, fingerprint FROM secret_keys").fetch_all(c).await)?;
        for (kid, fingerprint) in pairs {
            if known.iter().any(|(other, print)| other == kid && print != fingerprint) {
                return Err(StoreError::OtherSecretKey { kid: kid.clone() });
            }
        }
        if let Some((kid, _)) = pairs.first()
            && !known.is_empty()
            && !pairs.iter().any(|pair| known.contains(pair))
        {
            return Err(StoreError::OtherSecretKey { kid: kid.clone() });
        }
        for (kid, fingerprint) in pairs {
            on!(tx.conn(), |c| {
                sqlx::query("INSERT INTO secret_keys (kid, fingerprint) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                    .bind(kid)
                    .bind(fingerprint)
                    .execute(c)
                    .await
                    .map(drop)
            })?;
        }
        tx.commit().await?;
        Ok(())
    }
}

async fn insert_account(tx: &mut Tx, account: &NewAccount, now: Millis) -> Result<(), StoreError> {
    on!(tx.conn(), |c| {
        sqlx::query(INSERT_ACCOUNT)
            .bind(&account.id)
            .bind(&account.name)
            .bind(&account.tier)
            .bind(&account.webhook_secret)
            .bind(now.0)
            .execute(c)
            .await
            .map(drop)
    })?;
    for key in &account.keys {
        insert_key(tx, &account.id, key, now).await?;
    }
    Ok(())
}

/// Stores a key without limits.
pub(crate) async fn insert_key(tx: &mut Tx, account_id: &str, key: &NewApiKey, now: Millis) -> Result<(), StoreError> {
    on!(tx.conn(), |c| {
        sqlx::query(INSERT_KEY)
            .bind(&key.id)
            .bind(account_id)
            .bind(&key.public_id)
            .bind(&key.hash)
            .bind(&key.kid)
            .bind(key.scope.as_str())
            .bind(now.0)
            .execute(c)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// The sealed webhook secrets of an account; `None` when there is no such account.
pub(crate) async fn webhook_secrets(db: &Db, account_id: &str) -> Result<Option<WebhookSecrets>, StoreError> {
    Ok(on!(db.read(), |pool| sqlx::query_as(SECRETS).bind(account_id).fetch_optional(pool).await)?)
}

#[derive(FromRow)]
struct SecretsRow {
    id: String,
    #[sqlx(flatten)]
    secrets: WebhookSecrets,
}

/// The sealed webhook secrets of accounts, by account.
pub(crate) async fn secrets_of(
    tx: &mut Tx,
    mut accounts: Vec<&str>,
) -> Result<HashMap<String, WebhookSecrets>, StoreError> {
    accounts.sort_unstable();
    accounts.dedup();
    let mut all = HashMap::with_capacity(accounts.len());
    for piece in padded(&accounts) {
        let found: Vec<SecretsRow> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(SECRETS_OF.sql(piece.len()));
            for account in &piece {
                query = query.bind(**account);
            }
            query.fetch_all(c).await
        })?;
        all.extend(found.into_iter().map(|row| (row.id, row.secrets)));
    }
    Ok(all)
}
