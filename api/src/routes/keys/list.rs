//! `GET /v1/keys`: the keys of the caller's account, or of one of its sub-accounts, newest first, revoked ones included. What
//! can go wrong: 400 naming the parameter, 403, 404 for the sub-account.

use aig_domain::Error;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::create::ApiKeyRecord;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::routes::sub_accounts::get::no_such_sub_account;
use crate::state::Api;

/// A page of keys.
#[derive(Serialize, ToSchema)]
pub struct KeyList {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The keys, newest first.
    pub data: Vec<ApiKeyRecord>,
    /// Whether there are older ones: ask again with `after` set to `last_id`.
    pub has_more: bool,
    /// The id of the first.
    pub first_id: Option<String>,
    /// The id of the last.
    pub last_id: Option<String>,
}

/// List keys.
#[utoipa::path(
    get,
    path = "/v1/keys",
    params(
        ("sub_account_id" = Option<String>, Query, description = "The keys of this sub-account; your own when missing."),
        ("limit" = Option<u32>, Query, description = "1 to 100; 20 when missing."),
        ("after" = Option<String>, Query, description = "Only keys older than this one."),
    ),
    responses((status = 200, description = "A page of keys.", body = KeyList)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<KeyList>, ApiError> {
    let (limit, after) = query.page()?;
    let owner = match query.text("sub_account_id")? {
        None => caller.account_id.clone(),
        Some(id) => api.app.store.sub_account(&caller.account_id, id).await?.ok_or_else(no_such_sub_account)?.id,
    };
    let page = api.app.store.keys(&owner, after, limit).await?;
    let page = page.ok_or_else(|| Error::invalid("after", "`after` must be the id of one of these keys."))?;
    let data: Vec<ApiKeyRecord> = page.items.into_iter().map(|key| ApiKeyRecord::new(&caller, key)).collect();
    let (first_id, last_id) = (data.first().map(|it| it.id.clone()), data.last().map(|it| it.id.clone()));
    Ok(Json(KeyList { object: "list", data, has_more: page.has_more, first_id, last_id }))
}
