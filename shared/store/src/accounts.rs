//! Accounts, their API keys and webhook secrets, and the fingerprint of the installation's secret key.

use std::collections::{HashMap, HashSet};

use aig_domain::caps::Payer;
use aig_domain::{Millis, tenant};
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

/// A stored key, with what is needed to decide what a request with it may do.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// `key_…`
    pub id: String,
    /// Whose it is: an account or a sub-account.
    pub account_id: String,
    /// The account that pays: the owner, or the parent of one that is a sub-account.
    pub payer_id: String,
    /// What its spending and its requests are counted under: the id of the first key of its rotations.
    pub budget_id: String,
    /// The tier of the account that pays, such as `unlimited`.
    pub tier: String,
    /// Requests per minute, the lower of the key's own limit and its sub-account's; `None` when neither has one.
    pub rate_limit_rpm: Option<u32>,
    /// The label of requests that carry none.
    pub default_tag: Option<String>,
    /// Lists of model ids with `*` for anything; a model must be allowed by each of them.
    pub allowed_models: Vec<Vec<String>>,
    /// Whether the key itself carries a limit: a cap, a rate, a list of models, an end. Such a key cannot manage others.
    pub is_limited: bool,
    /// Whether the account, the sub-account or the key has a cap.
    pub has_cap: bool,
    /// Tags of the account that have caps; all of them count as such when there are very many.
    pub capped_tags: CappedTags,
    /// The HMAC of the whole key, hex.
    pub hash: String,
    /// Under which secret key's pepper.
    pub kid: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was revoked, or its account deleted.
    pub revoked_at: Option<Millis>,
    /// From when on it is not good any more.
    pub expires_at: Option<Millis>,
    /// The key that dies when this one is first used.
    pub replaces: Option<String>,
}

impl ApiKey {
    /// Who pays for a request with this key that carries `tag`.
    pub fn payer(&self, tag: Option<String>) -> Payer {
        Payer {
            account_id: self.payer_id.clone(),
            sub_account_id: self.is_of_sub_account().then(|| self.account_id.clone()),
            key_id: self.budget_id.clone(),
            tag: tag.or_else(|| self.default_tag.clone()),
        }
    }

    /// Whether it belongs to a sub-account.
    pub fn is_of_sub_account(&self) -> bool {
        self.account_id != self.payer_id
    }

    /// Whether it may use the model with this id.
    pub fn allows(&self, model: &str) -> bool {
        tenant::allows(&self.allowed_models, model)
    }

    /// Whether a cap may stand above a request for which `payer` pays. Without one nothing needs to be reserved.
    pub fn is_capped(&self, payer: &Payer) -> bool {
        self.has_cap || payer.tag.as_ref().is_some_and(|tag| self.capped_tags.has(tag))
    }
}

/// Which tags of an account have caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CappedTags {
    /// These.
    These(HashSet<String>),
    /// More than are kept with a key.
    Many,
}

impl CappedTags {
    /// Whether `tag` has a cap, or may have one.
    pub fn has(&self, tag: &str) -> bool {
        match self {
            Self::These(tags) => tags.contains(tag),
            Self::Many => true,
        }
    }
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

#[derive(FromRow)]
struct KeyRow {
    id: String,
    account_id: String,
    payer_id: String,
    budget_id: String,
    tier: String,
    key_rpm: Option<i64>,
    account_rpm: Option<i64>,
    default_tag: Option<String>,
    key_models: Option<String>,
    account_models: Option<String>,
    key_caps: i64,
    outer_caps: i64,
    hash: String,
    kid: String,
    scope: String,
    revoked_at: Option<i64>,
    deleted_at: Option<i64>,
    expires_at: Option<i64>,
    replaces: Option<String>,
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("key {}: {what}", row.id));
        let scope = Scope::parse(&row.scope).ok_or_else(|| corrupt("unknown scope"))?;
        let lists = [&row.key_models, &row.account_models].into_iter().flatten();
        let allowed_models = lists
            .map(|list| serde_json::from_str(list).map_err(|_| corrupt("unreadable list of models")))
            .collect::<Result<_, _>>()?;
        let rpm = |limit: Option<i64>| limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let limits = [row.key_rpm.is_some(), row.key_models.is_some(), row.key_caps > 0, row.expires_at.is_some()];
        Ok(Self {
            rate_limit_rpm: [rpm(row.key_rpm), rpm(row.account_rpm)].into_iter().flatten().min(),
            allowed_models,
            is_limited: limits.contains(&true),
            has_cap: row.key_caps > 0 || row.outer_caps > 0,
            capped_tags: CappedTags::These(HashSet::new()),
            scope,
            id: row.id,
            account_id: row.account_id,
            payer_id: row.payer_id,
            budget_id: row.budget_id,
            tier: row.tier,
            default_tag: row.default_tag,
            hash: row.hash,
            kid: row.kid,
            revoked_at: row.revoked_at.or(row.deleted_at).map(Millis),
            expires_at: row.expires_at.map(Millis),
            replaces: row.replaces,
        })
    }
}

const FIRST: &str = "INSERT INTO settings (name, value) VALUES ('first_account', $1) ON CONFLICT DO NOTHING \
    RETURNING value";
const INSERT_ACCOUNT: &str =
    "INSERT INTO accounts (id, name, tier, webhook_secret, created_at) VALUES ($1, $2, $3, $4, $5)";
const INSERT_KEY: &str = "INSERT INTO api_keys (id, account_id, public_id, hash, kid, scope, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const KEY: &str = "SELECT k.id, k.account_id, COALESCE(a.parent_id, a.id) AS payer_id, \
    COALESCE(k.budget_id, k.id) AS budget_id, COALESCE(p.tier, a.tier) AS tier, k.rate_limit_rpm AS key_rpm, \
    a.rate_limit_rpm AS account_rpm, a.default_tag, k.allowed_models AS key_models, \
    a.allowed_models AS account_models, \
    (SELECT COUNT(*) FROM caps WHERE caps.scope = COALESCE(k.budget_id, k.id)) AS key_caps, \
    (SELECT COUNT(*) FROM caps WHERE caps.scope IN (a.id, a.parent_id)) AS outer_caps, \
    k.hash, k.kid, k.scope, k.revoked_at, a.deleted_at, k.expires_at, k.replaces \
    FROM api_keys k JOIN accounts a ON a.id = k.account_id LEFT JOIN accounts p ON p.id = a.parent_id \
    WHERE k.public_id = $1";
/// How many capped tags are kept with a key.
const MOST_TAGS: i64 = 200;
const CAPPED_TAGS: &str = "SELECT tag FROM caps WHERE account_id = $1 AND tag IS NOT NULL LIMIT $2";
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

    /// The key with this public id.
    pub async fn key_by_public_id(&self, public_id: &str) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<KeyRow> =
            on!(self.db.read(), |pool| sqlx::query_as(KEY).bind(public_id).fetch_optional(pool).await)?;
        let Some(mut key) = row.map(ApiKey::try_from).transpose()? else { return Ok(None) };
        let tags: Vec<String> = on!(self.db.read(), |pool| {
            sqlx::query_scalar(CAPPED_TAGS).bind(&key.payer_id).bind(MOST_TAGS + 1).fetch_all(pool).await
        })?;
        let many = tags.len() > usize::try_from(MOST_TAGS).unwrap_or(usize::MAX);
        key.capped_tags = if many { CappedTags::Many } else { CappedTags::These(tags.into_iter().collect()) };
        Ok(Some(key))
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
