//! `GET /v1/sub-accounts`: the caller's sub-accounts, newest first. What can go wrong: 400 naming the parameter, 403.

use aig_domain::Error;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::create::SubAccountRecord;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

/// A page of sub-accounts.
#[derive(Serialize, ToSchema)]
pub struct SubAccountList {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The sub-accounts, newest first.
    pub data: Vec<SubAccountRecord>,
    /// Whether there are older ones: ask again with `after` set to `last_id`.
    pub has_more: bool,
    /// The id of the first.
    pub first_id: Option<String>,
    /// The id of the last.
    pub last_id: Option<String>,
}

/// List sub-accounts.
#[utoipa::path(
    get,
    path = "/v1/sub-accounts",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 100; 20 when missing."),
        ("after" = Option<String>, Query, description = "Only sub-accounts older than this one."),
    ),
    responses((status = 200, description = "A page of sub-accounts.", body = SubAccountList)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<SubAccountList>, ApiError> {
    let (limit, after) = query.page()?;
    let page = api.app.store.sub_accounts(&caller.account_id, after, limit).await?;
    let page = page.ok_or_else(|| Error::invalid("after", "`after` must be the id of one of your sub-accounts."))?;
    let data: Vec<SubAccountRecord> = page.items.into_iter().map(SubAccountRecord::from).collect();
    let (first_id, last_id) = (data.first().map(|it| it.id.clone()), data.last().map(|it| it.id.clone()));
    Ok(Json(SubAccountList { object: "list", data, has_more: page.has_more, first_id, last_id }))
}
