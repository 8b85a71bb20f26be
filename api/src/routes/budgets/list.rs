//! `GET /v1/budgets`: the caller's budgets, newest first. What can go wrong: 400 naming the parameter, 403.

use aig_domain::Error;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::create::BudgetRecord;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

/// A page of budgets.
#[derive(Serialize, ToSchema)]
pub struct BudgetList {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The budgets, newest first.
    pub data: Vec<BudgetRecord>,
    /// Whether there are older ones: ask again with `after` set to `last_id`.
    pub has_more: bool,
    /// The id of the first.
    pub first_id: Option<String>,
    /// The id of the last.
    pub last_id: Option<String>,
}

/// List budgets.
#[utoipa::path(
    get,
    path = "/v1/budgets",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 100; 20 when missing."),
        ("after" = Option<String>, Query, description = "Only budgets older than this one."),
    ),
    responses((status = 200, description = "A page of budgets.", body = BudgetList)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<BudgetList>, ApiError> {
    let (limit, after) = query.page()?;
    let page = api.app.store.budgets(&caller.account_id, after, limit).await?;
    let page = page.ok_or_else(|| Error::invalid("after", "`after` must be the id of one of your budgets."))?;
    let data: Vec<BudgetRecord> = page.items.into_iter().map(BudgetRecord::from).collect();
    let (first_id, last_id) = (data.first().map(|it| it.id.clone()), data.last().map(|it| it.id.clone()));
    Ok(Json(BudgetList { object: "list", data, has_more: page.has_more, first_id, last_id }))
}
