//! `POST /v1/budgets`: a hard monthly cap on what requests with a tag cost, over the account and its sub-accounts, or on all of
//! them. A tag that has one gets the new cap. What can go wrong: 400 naming the field, 403 for a key that may not manage, 413, 415.

use aig_domain::id;
use aig_domain::tenant::Change;
use aig_store::Budget;
use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::fields::{Fields, required};
use crate::state::Api;

/// A cap on a tag, or on the whole account. camelCase names are taken, too.
#[derive(ToSchema)]
pub struct BudgetBody {
    /// The value of `x-aig-tag`, at most 64 characters; all requests of the account and its sub-accounts when missing.
    pub tag: Option<String>,
    /// The most that its requests may cost in a calendar month (UTC), in cents with up to seven decimals; 0 allows nothing.
    #[schema(value_type = f64)]
    pub monthly_cap_cents: Number,
}

/// The budget of a tag, or of the account.
#[derive(Serialize, ToSchema)]
pub struct BudgetRecord {
    /// `bud_…`
    pub id: String,
    /// Always `budget`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The tag; null for the whole account.
    pub tag: Option<String>,
    /// The most that its requests may cost in a calendar month (UTC), in cents.
    #[schema(value_type = f64)]
    pub monthly_cap_cents: Number,
    /// When it was made, Unix seconds.
    pub created_at: i64,
    /// When its cap was last set, Unix seconds.
    pub updated_at: i64,
}

impl From<Budget> for BudgetRecord {
    fn from(stored: Budget) -> Self {
        Self {
            id: stored.id,
            object: "budget",
            tag: stored.tag,
            monthly_cap_cents: stored.cap.cents_json(),
            created_at: stored.created_at.unix_seconds(),
            updated_at: stored.updated_at.unix_seconds(),
        }
    }
}

/// Cap a tag, or the whole account.
///
/// 201 for a new budget; 200 when there was one, whose cap is replaced.
#[utoipa::path(
    post,
    path = "/v1/budgets",
    request_body = BudgetBody,
    responses(
        (status = 201, description = "The budget.", body = BudgetRecord),
        (status = 200, description = "The tag's budget with its new cap.", body = BudgetRecord),
    ),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<BudgetRecord>), ApiError> {
    let fields = Fields::read(request, api.job_body).await?;
    let tag = if let Change::Set(tag) = fields.tag("tag")? { Some(tag) } else { None };
    let cap = required(fields.cents("monthly_cap_cents")?, "monthly_cap_cents")?;
    let id = id::new("bud_", api.app.clock.now());
    let (budget, is_new) = api.app.store.put_budget(&caller.account_id, &id, tag.as_deref(), cap).await?;
    if is_new {
        api.account_changed(&caller.account_id).await;
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(budget.into())))
}
