//! `GET /v1/sub-accounts/{id}`: a sub-account. What can go wrong: 403, 404, also for somebody else's or a deleted one.

use aig_domain::Error;
use axum::Json;
use axum::extract::{Path, State};

use super::create::SubAccountRecord;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

/// The 404 of a sub-account that does not exist for the caller.
pub fn no_such_sub_account() -> Error {
    Error::not_found("There is no such sub-account. GET /v1/sub-accounts lists yours. Nothing was done.")
}

/// Read a sub-account.
#[utoipa::path(
    get,
    path = "/v1/sub-accounts/{id}",
    params(("id" = String, Path, description = "`sa_…`")),
    responses((status = 200, description = "The sub-account.", body = SubAccountRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<SubAccountRecord>, ApiError> {
    let found = api.app.store.sub_account(&caller.account_id, &id).await?;
    Ok(Json(found.ok_or_else(no_such_sub_account)?.into()))
}
