//! `PATCH /v1/budgets/{id}`: set the cap of a budget. What can go wrong: 400 naming the field, 403, 404, 413, 415.

use aig_domain::Error;
use axum::Json;
use axum::extract::{Path, Request, State};
use serde_json::Number;
use utoipa::ToSchema;

use super::create::BudgetRecord;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::fields::{Fields, required};
use crate::state::Api;

/// The new cap.
#[derive(ToSchema)]
pub struct BudgetPatch {
    /// The most that its requests may cost in a calendar month (UTC), in cents with up to seven decimals; 0 allows nothing.
    #[schema(value_type = f64)]
    pub monthly_cap_cents: Number,
}

/// The 404 of a budget that does not exist for the caller.
pub fn no_such_budget() -> Error {
    Error::not_found("There is no such budget. GET /v1/budgets lists yours. Nothing was done.")
}

/// Set the cap of a budget.
#[utoipa::path(
    patch,
    path = "/v1/budgets/{id}",
    params(("id" = String, Path, description = "`bud_…`")),
    request_body = BudgetPatch,
    responses((status = 200, description = "The budget as it is now.", body = BudgetRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<BudgetRecord>, ApiError> {
    let fields = Fields::read(request, api.job_body).await?;
    let cap = required(fields.cents("monthly_cap_cents")?, "monthly_cap_cents")?;
    let changed = api.app.store.update_budget(&caller.account_id, &id, cap).await?;
    Ok(Json(changed.ok_or_else(no_such_budget)?.into()))
}
