//! `DELETE /v1/keys/{id}`: revoke a key at once, on other api processes within two seconds. Again it answers the same. What can
//! go wrong: 403 for an admin key without one, 404.

use aig_domain::{Error, ErrorKind};
use aig_store::{KeyRecord, Scope};
use axum::Json;
use axum::extract::{Path, State};

use super::create::ApiKeyRecord;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::{Api, ApiState};

/// The 404 of a key that does not exist for the caller.
pub fn no_such_key() -> Error {
    Error::not_found("There is no such key. GET /v1/keys lists yours. Nothing was done.")
}

/// The key `id`, if the caller may change it.
///
/// # Errors
/// 404, or 403: whoever could rotate the admin key would have it.
pub async fn managed(api: &ApiState, caller: &Caller, id: &str) -> Result<KeyRecord, Error> {
    let key = api.app.store.key(&caller.account_id, id).await?.ok_or_else(no_such_key)?;
    if key.scope == Scope::Admin && caller.key.scope != Scope::Admin {
        let message = "Only an admin key may change an admin key. Nothing was done.";
        return Err(Error::new(ErrorKind::ScopeExceeded, message));
    }
    Ok(key)
}

/// Revoke a key.
///
/// Requests with it are refused at once. A key may revoke itself.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    params(("id" = String, Path, description = "`key_…`")),
    responses((status = 200, description = "The key as it is now.", body = ApiKeyRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ApiKeyRecord>, ApiError> {
    let key = managed(&api, &caller, &id).await?;
    let revoked = api.app.store.revoke_key(&caller.account_id, &key.id).await?.ok_or_else(no_such_key)?;
    api.keys_changed(vec![key.public_id]).await;
    Ok(Json(ApiKeyRecord::new(&caller, revoked)))
}
