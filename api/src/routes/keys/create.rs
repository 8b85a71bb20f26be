//! `POST /v1/keys`: a further key of the caller's account or of one of its sub-accounts, with limits of its own. It is shown
//! once. What can go wrong: 400 naming the field, 403 for a key that may not manage, 404 for the sub-account, 413, 415.

use std::time::Duration;

use aig_domain::tenant::Limits;
use aig_domain::{Error, Millis, Nano, Secret, id, keys};
use aig_store::{KeyRecord, NewApiKey, NewLimitedKey, Scope};
use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::fields::Fields;
use crate::routes::sub_accounts::create::MAX_NAME;
use crate::routes::sub_accounts::get::no_such_sub_account;
use crate::state::{Api, ApiState};

/// The longest life of a key that says how long it lives, in seconds: 100 years.
const MAX_LIFE: i64 = 100 * 365 * 24 * 3600;

/// What a key is to be. camelCase names are taken, too.
#[derive(ToSchema)]
pub struct KeyBody {
    /// What people call it, at most 200 characters.
    pub name: Option<String>,
    /// The sub-account that it is for; else it is your own.
    pub sub_account_id: Option<String>,
    /// Ids of models it may use, `*` standing for anything; null or missing allows all.
    pub allowed_models: Option<Vec<String>>,
    /// The most that it may spend in a calendar month (UTC), in cents with up to seven decimals. 0 allows nothing; null or
    /// missing sets no cap.
    #[schema(value_type = Option<f64>)]
    pub spend_cap_cents: Option<Number>,
    /// How many requests it may make a minute; your tier's limit holds besides.
    pub rate_limit_rpm: Option<u32>,
    /// From when on it is not good any more, Unix seconds.
    pub expires_at: Option<i64>,
    /// The same, in seconds from now; give one of both.
    pub expires_in: Option<i64>,
}

/// A key, without its text.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyRecord {
    /// `key_…`
    pub id: String,
    /// Always `api_key`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// What people call it.
    pub name: Option<String>,
    /// The part of the key that may be shown, and that logs name it by.
    pub public_id: String,
    /// How the key begins, to recognise it by.
    pub prefix: String,
    /// The sub-account that it is for.
    pub sub_account_id: Option<String>,
    /// `standard` or `admin`.
    #[schema(value_type = String)]
    pub scope: &'static str,
    /// Ids of models it may use, `*` standing for anything; null for all.
    pub allowed_models: Option<Vec<String>>,
    /// The most that it may spend in a calendar month (UTC), in cents, together with the keys it was rotated from; null for no
    /// cap.
    #[schema(value_type = Option<f64>)]
    pub spend_cap_cents: Option<Number>,
    /// How many requests it may make a minute; null for no limit but your tier's.
    pub rate_limit_rpm: Option<u32>,
    /// When it was made, Unix seconds.
    pub created_at: i64,
    /// The same.
    pub created: i64,
    /// From when on it is not good any more, Unix seconds.
    pub expires_at: Option<i64>,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<i64>,
    /// The key that dies when this one is first used.
    pub replaces: Option<String>,
}

/// A new key.
#[derive(Serialize, ToSchema)]
pub struct NewKeyRecord {
    /// What is known of it.
    #[serde(flatten)]
    pub record: ApiKeyRecord,
    /// The key. It is shown now and never again.
    pub key: String,
}

impl NewKeyRecord {
    /// The answer of a route that made a key.
    pub fn new(caller: &Caller, stored: KeyRecord, text: &Secret) -> (StatusCode, Json<Self>) {
        let record = ApiKeyRecord::new(caller, stored);
        (StatusCode::CREATED, Json(Self { record, key: text.expose().to_owned() }))
    }
}

impl ApiKeyRecord {
    /// The record of a key that `caller` manages.
    pub fn new(caller: &Caller, stored: KeyRecord) -> Self {
        Self {
            id: stored.id,
            object: "api_key",
            name: stored.name,
            prefix: format!("{}{}", keys::PREFIX, stored.public_id),
            public_id: stored.public_id,
            sub_account_id: Some(stored.account_id).filter(|owner| *owner != caller.account_id),
            scope: stored.scope.as_str(),
            allowed_models: stored.limits.allowed_models,
            spend_cap_cents: stored.limits.spend_cap.map(Nano::cents_json),
            rate_limit_rpm: stored.limits.rate_limit_rpm,
            created_at: stored.created_at.unix_seconds(),
            created: stored.created_at.unix_seconds(),
            expires_at: stored.expires_at.map(Millis::unix_seconds),
            revoked_at: stored.revoked_at.map(Millis::unix_seconds),
            replaces: stored.replaces,
        }
    }
}

/// A new standard key: its text, and what is stored of it.
pub fn mint(api: &ApiState) -> (Secret, NewApiKey) {
    let made = keys::generate(&api.app.ring);
    let key = NewApiKey {
        id: id::new("key_", api.app.clock.now()),
        public_id: made.public_id,
        hash: made.hash,
        kid: made.kid,
        scope: Scope::Standard,
    };
    (made.text, key)
}

fn read_end(fields: &Fields, now: Millis) -> Result<Option<Millis>, Error> {
    let last = now.unix_seconds().saturating_add(MAX_LIFE);
    let at = fields.whole("expires_at", now.unix_seconds() + 1..=last)?.into_value();
    let within = fields.whole("expires_in", 1..=MAX_LIFE)?.into_value();
    match (at, within) {
        (Some(_), Some(_)) => Err(Error::invalid("expires_in", "Give `expires_at` or `expires_in`, not both.")),
        (Some(at), None) => Ok(Some(Millis(at.saturating_mul(1000)))),
        (None, within) => Ok(within.map(|s| now.plus(Duration::from_secs(u64::try_from(s).unwrap_or(0))))),
    }
}

/// Create a key.
///
/// The key is shown once. One with limits cannot manage keys, sub-accounts or budgets.
#[utoipa::path(
    post,
    path = "/v1/keys",
    request_body = KeyBody,
    responses((status = 201, description = "The key.", body = NewKeyRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<NewKeyRecord>), ApiError> {
    let fields = Fields::read(request, api.job_body).await?;
    fields.not_blank("sub_account_id")?;
    let (text, key) = mint(&api);
    let new = NewLimitedKey {
        key,
        payer_id: caller.account_id.clone(),
        sub_account_id: fields.text("sub_account_id", MAX_NAME)?.into_value(),
        name: fields.text("name", MAX_NAME)?.into_value(),
        limits: Limits {
            spend_cap: fields.cents("spend_cap_cents")?.into_value(),
            rate_limit_rpm: fields.rpm("rate_limit_rpm")?.into_value(),
            allowed_models: fields.models("allowed_models")?.into_value(),
        },
        expires_at: read_end(&fields, api.app.clock.now())?,
    };
    let stored = api.app.store.create_key(&new).await?;
    Ok(NewKeyRecord::new(&caller, stored.ok_or_else(no_such_sub_account)?, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_end_at_a_time_or_after_one() {
        let now = Millis(1_000_500);
        let end = |body: &str| read_end(&Fields::parse(body.as_bytes()).unwrap(), now);
        assert_eq!(end("{}").unwrap(), None);
        assert_eq!(end(r#"{"expires_at":null,"expires_in":null}"#).unwrap(), None);
        assert_eq!(end(r#"{"expires_at":1001}"#).unwrap(), Some(Millis(1_001_000)));
        assert_eq!(end(r#"{"expiresIn":60}"#).unwrap(), Some(Millis(1_060_500)));
        for (bad, param) in [
            (r#"{"expires_at":1000}"#, "expires_at"),
            (r#"{"expires_at":-5}"#, "expires_at"),
            (r#"{"expires_at":9223372036854775807}"#, "expires_at"),
            (r#"{"expires_at":"soon"}"#, "expires_at"),
            (r#"{"expires_in":0}"#, "expires_in"),
            (r#"{"expires_in":1.5}"#, "expires_in"),
            (r#"{"expires_in":60,"expires_at":2000}"#, "expires_in"),
        ] {
            assert_eq!(end(bad).unwrap_err().param.as_deref(), Some(param), "{bad}");
        }
    }
}
