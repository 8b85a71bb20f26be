//! `DELETE /v1/sub-accounts/{id}`: end a sub-account and all its keys at once. Its jobs stay with the parent; those under way
//! are finished and paid for. What can go wrong: 403, 404.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::get::no_such_sub_account;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

/// That something is gone.
#[derive(Serialize, ToSchema)]
pub struct Deleted {
    /// What it was.
    pub id: String,
    /// What kind of thing it was.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// Always true.
    pub deleted: bool,
    /// Always `ok`.
    #[schema(value_type = String)]
    pub status: &'static str,
}

impl Deleted {
    /// The answer of a route that deleted the `object` with this id.
    pub fn new(object: &'static str, id: String) -> Json<Self> {
        Json(Self { id, object, deleted: true, status: "ok" })
    }
}

/// Delete a sub-account.
///
/// All its keys are dead at once. Jobs under way are finished and paid for.
#[utoipa::path(
    delete,
    path = "/v1/sub-accounts/{id}",
    params(("id" = String, Path, description = "`sa_…`")),
    responses((status = 200, description = "It is deleted.", body = Deleted)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    let keys = api.app.store.delete_sub_account(&caller.account_id, &id).await?.ok_or_else(no_such_sub_account)?;
    api.keys_changed(keys).await;
    Ok(Deleted::new("sub_account", id))
}
