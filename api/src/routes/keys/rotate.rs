//! `POST /v1/keys/{id}/rotate`: a new key with the settings and the budget of an old one, which dies when the new one is first
//! used, so that nothing need stand still. What can go wrong: 400 for a key that is dead, 403, 404.

use aig_domain::{Error, ErrorKind};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::create::{NewKeyRecord, mint};
use super::delete::{managed, no_such_key};
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

fn dead() -> Error {
    let message = "This key was revoked or has expired, so there is nothing to rotate. Nothing was done. Make a new key with \
        POST /v1/keys.";
    Error::new(ErrorKind::InvalidRequest, message)
}

/// Rotate a key.
///
/// The new key is shown once. It has the settings of the old one and shares its cap; the old one dies when the new one is first
/// used.
#[utoipa::path(
    post,
    path = "/v1/keys/{id}/rotate",
    params(("id" = String, Path, description = "`key_…`")),
    responses((status = 201, description = "The new key.", body = NewKeyRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<NewKeyRecord>), ApiError> {
    let old = managed(&api, &caller, &id).await?;
    if old.revoked_at.is_some() || old.expires_at.is_some_and(|end| end <= api.app.clock.now()) {
        return Err(dead().into());
    }
    let (text, new) = mint(&api);
    let stored = api.app.store.rotate_key(&caller.account_id, &old.id, &new).await?;
    Ok(NewKeyRecord::new(&caller, stored.ok_or_else(no_such_key)?, &text))
}
