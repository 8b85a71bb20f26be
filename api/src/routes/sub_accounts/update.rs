//! `PATCH /v1/sub-accounts/{id}`: change what is named; null removes it. Its keys follow at once, on other api processes within
//! two seconds. What can go wrong: 400 naming the field, 403, 404, 413, 415.

use axum::Json;
use axum::extract::{Path, Request, State};
use serde_json::Number;
use utoipa::ToSchema;

use super::create::{SubAccountRecord, read};
use super::get::no_such_sub_account;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::fields::Fields;
use crate::state::Api;

/// What is to change. What is missing stays; null removes.
#[derive(ToSchema)]
pub struct SubAccountPatch {
    /// What people call it, 1 to 200 characters; it cannot be removed.
    pub name: Option<String>,
    /// What you call it.
    pub external_ref: Option<String>,
    /// The most that it may spend in a calendar month (UTC), in cents with up to seven decimals.
    #[schema(value_type = Option<f64>)]
    pub spend_cap_cents: Option<Number>,
    /// How many requests a minute each of its keys may make.
    pub rate_limit_rpm: Option<u32>,
    /// The cost label of requests that carry none.
    pub default_tag: Option<String>,
    /// Ids of models it may use, `*` standing for anything.
    pub allowed_models: Option<Vec<String>>,
}

/// Change a sub-account.
///
/// What is missing stays as it is; null removes it. A raised cap makes room at once.
#[utoipa::path(
    patch,
    path = "/v1/sub-accounts/{id}",
    params(("id" = String, Path, description = "`sa_…`")),
    request_body = SubAccountPatch,
    responses((status = 200, description = "The sub-account as it is now.", body = SubAccountRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SubAccountRecord>, ApiError> {
    let change = read(&Fields::read(request, api.job_body).await?)?;
    let changed = api.app.store.update_sub_account(&caller.account_id, &id, &change).await?;
    let changed = changed.ok_or_else(no_such_sub_account)?;
    api.account_changed(&id).await;
    Ok(Json(changed.into()))
}
