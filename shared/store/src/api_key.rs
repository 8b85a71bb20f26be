//! A key as requests meet it: whose it is, who pays, and what limits it. One look-up brings all of it.

use std::collections::HashSet;

use aig_domain::caps::Payer;
use aig_domain::{Millis, tenant};
use sqlx::FromRow;

use crate::accounts::Scope;
use crate::db::on;
use crate::{Store, StoreError};

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
impl Store {
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
}
