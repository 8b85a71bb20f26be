//! `POST /v1/sub-accounts`: a sub-account with a key of its own, which is shown once. The caller's account pays for it and
//! sees all it has. What can go wrong: 400 naming the field, 403 for a key that may not manage, 413, 415.

use aig_domain::signing::new_webhook_secret;
use aig_domain::tenant::{Change, Limits};
use aig_domain::{Error, id};
use aig_store::{NewSubAccount, SubAccount, SubAccountChange};
use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::fields::{Fields, required};
use crate::routes::keys::create::mint;
use crate::state::Api;

/// The longest name, in characters.
pub const MAX_NAME: usize = 200;
const MAX_REF: usize = 200;

/// What a sub-account is to be. camelCase names are taken, too.
#[derive(ToSchema)]
pub struct SubAccountBody {
    /// What people call it, 1 to 200 characters.
    pub name: String,
    /// What you call it, at most 200 characters.
    pub external_ref: Option<String>,
    /// The most that it may spend in a calendar month (UTC), in cents with up to seven decimals. 0 allows nothing; null or
    /// missing sets no cap.
    #[schema(value_type = Option<f64>)]
    pub spend_cap_cents: Option<Number>,
    /// How many requests a minute each of its keys may make; your tier's limit holds besides.
    pub rate_limit_rpm: Option<u32>,
    /// The cost label of requests that carry no `x-aig-tag`.
    pub default_tag: Option<String>,
    /// Ids of models it may use, `*` standing for anything; null or missing allows all.
    pub allowed_models: Option<Vec<String>>,
}

/// A sub-account.
#[derive(Serialize, ToSchema)]
pub struct SubAccountRecord {
    /// `sa_…`
    pub id: String,
    /// Always `sub_account`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// What people call it.
    pub name: String,
    /// What you call it.
    pub external_ref: Option<String>,
    /// The most that it may spend in a calendar month (UTC), in cents; null for no cap.
    #[schema(value_type = Option<f64>)]
    pub spend_cap_cents: Option<Number>,
    /// How many requests a minute each of its keys may make; null for no limit but your tier's.
    pub rate_limit_rpm: Option<u32>,
    /// The cost label of requests that carry none.
    pub default_tag: Option<String>,
    /// Ids of models it may use, `*` standing for anything; null for all.
    pub allowed_models: Option<Vec<String>>,
    /// When it was made, Unix seconds.
    pub created_at: i64,
    /// The same.
    pub created: i64,
}

/// A new sub-account with its key.
#[derive(Serialize, ToSchema)]
pub struct NewSubAccountRecord {
    /// The sub-account.
    #[serde(flatten)]
    pub record: SubAccountRecord,
    /// Its key. It is shown now and never again.
    pub key: String,
    /// The same key.
    pub scoped_key: String,
}

impl From<SubAccount> for SubAccountRecord {
    fn from(stored: SubAccount) -> Self {
        Self {
            id: stored.id,
            object: "sub_account",
            name: stored.name,
            external_ref: stored.external_ref,
            spend_cap_cents: stored.limits.spend_cap.map(aig_domain::Nano::cents_json),
            rate_limit_rpm: stored.limits.rate_limit_rpm,
            default_tag: stored.default_tag,
            allowed_models: stored.limits.allowed_models,
            created_at: stored.created_at.unix_seconds(),
            created: stored.created_at.unix_seconds(),
        }
    }
}

/// What a body says about a sub-account, new or not.
///
/// # Errors
/// A 400 that names the field.
pub fn read(fields: &Fields) -> Result<SubAccountChange, Error> {
    let name = match fields.text("name", MAX_NAME)? {
        Change::Keep => None,
        given => Some(required(given, "name")?),
    };
    Ok(SubAccountChange {
        name,
        external_ref: fields.text("external_ref", MAX_REF)?,
        default_tag: fields.tag("default_tag")?,
        spend_cap: fields.cents("spend_cap_cents")?,
        rate_limit_rpm: fields.rpm("rate_limit_rpm")?,
        allowed_models: fields.models("allowed_models")?,
    })
}

/// Create a sub-account.
///
/// The key is shown once. What the sub-account spends is on your bill.
#[utoipa::path(
    post,
    path = "/v1/sub-accounts",
    request_body = SubAccountBody,
    responses((status = 201, description = "The sub-account and its key.", body = NewSubAccountRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<NewSubAccountRecord>), ApiError> {
    let given = read(&Fields::read(request, api.job_body).await?)?;
    let name = given.name.map_or(Change::Keep, Change::Set);
    let (text, key) = mint(&api);
    let id = id::new("sa_", api.app.clock.now());
    let new = NewSubAccount {
        webhook_secret: api.app.ring.seal(&id, new_webhook_secret().expose()),
        id,
        parent_id: caller.account_id,
        name: required(name, "name")?,
        external_ref: given.external_ref.into_value(),
        default_tag: given.default_tag.into_value(),
        limits: Limits {
            spend_cap: given.spend_cap.into_value(),
            rate_limit_rpm: given.rate_limit_rpm.into_value(),
            allowed_models: given.allowed_models.into_value(),
        },
        key,
    };
    let record = api.app.store.create_sub_account(&new).await?.into();
    let key = text.expose().to_owned();
    Ok((StatusCode::CREATED, Json(NewSubAccountRecord { record, scoped_key: key.clone(), key })))
}

#[cfg(test)]
mod tests {
    use aig_domain::Nano;

    use super::*;

    fn parsed(body: &str) -> Result<SubAccountChange, Error> {
        read(&Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_body_in_camel_case_is_read() {
        let body = r#"{"name":"N","externalRef":"r","spendCapCents":0,"rateLimitRpm":5,"defaultTag":"t","allowedModels":["*"]}"#;
        let given = parsed(body).unwrap();
        assert_eq!((given.name.as_deref(), given.external_ref), (Some("N"), Change::Set("r".into())));
        assert_eq!((given.spend_cap, given.rate_limit_rpm), (Change::Set(Nano::ZERO), Change::Set(5)));
        assert_eq!((given.default_tag, given.allowed_models), (Change::Set("t".into()), Change::Set(vec!["*".into()])));
    }

    #[test]
    fn a_name_may_be_left_out_but_not_removed() {
        assert_eq!(parsed("{}").unwrap().name, None);
        for bad in [r#"{"name":null}"#, r#"{"name":" "}"#, r#"{"name":1}"#] {
            assert_eq!(parsed(bad).unwrap_err().param.as_deref(), Some("name"), "{bad}");
        }
        assert!(parsed(&format!(r#"{{"name":"{}"}}"#, "é".repeat(200))).is_ok());
        assert!(parsed(&format!(r#"{{"name":"{}"}}"#, "é".repeat(201))).is_err());
    }
}
