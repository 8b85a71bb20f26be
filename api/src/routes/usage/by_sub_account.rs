//! `GET /v1/usage/by-sub-account`: what a month cost, sub-account by sub-account, most expensive first. A sub-account's key
//! sees its own line only. What can go wrong: 400 naming the parameter.

use aig_domain::Nano;
use aig_store::UsageLine;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use super::by_tag::read_month;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

/// A month by sub-account.
#[derive(Serialize, ToSchema)]
pub struct UsageBySubAccount {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The month, such as `2026-11`.
    pub month: String,
    /// At most 1000 sub-accounts, most expensive first: those that were charged for something, deleted ones included.
    pub data: Vec<OneSubAccountUsage>,
    /// Whether there are more.
    pub has_more: bool,
}

/// What one sub-account cost.
#[derive(Serialize, ToSchema)]
pub struct OneSubAccountUsage {
    /// Its name.
    pub label: String,
    /// `sa_…`
    pub sub_account_id: String,
    /// Its name.
    pub name: Option<String>,
    /// How many requests were charged.
    pub requests: i64,
    /// What they cost, margin included, less what was given back.
    #[schema(value_type = f64)]
    pub cost_cents: Number,
    /// Its monthly cap as it is now; null for no cap.
    #[schema(value_type = Option<f64>)]
    pub cap_cents: Option<Number>,
}

impl From<UsageLine> for OneSubAccountUsage {
    fn from(line: UsageLine) -> Self {
        let id = line.id.unwrap_or_default();
        Self {
            label: line.name.clone().unwrap_or_else(|| id.clone()),
            sub_account_id: id,
            name: line.name,
            requests: line.requests,
            cost_cents: line.cost.cents_json(),
            cap_cents: line.cap.map(Nano::cents_json),
        }
    }
}

/// A month's cost by sub-account.
#[utoipa::path(
    get,
    path = "/v1/usage/by-sub-account",
    params(("month" = Option<String>, Query, description = "`YYYY-MM`, a calendar month in UTC; this one when missing.")),
    responses((status = 200, description = "The month.", body = UsageBySubAccount)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    query: Query,
) -> Result<Json<UsageBySubAccount>, ApiError> {
    let month = read_month(&api, &query)?;
    let only = caller.key.is_of_sub_account().then_some(caller.account_id.as_str());
    let usage = api.app.store.usage_by_sub_account(&caller.key.payer_id, only, month).await?;
    let data = usage.lines.into_iter().map(OneSubAccountUsage::from).collect();
    Ok(Json(UsageBySubAccount { object: "list", month: month.to_string(), data, has_more: usage.has_more }))
}
