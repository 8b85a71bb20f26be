//! `GET /v1/usage/by-tag`: what a month cost, tag by tag, most expensive first. A sub-account's key sees its own requests only;
//! an account's adds up to what the account was charged. What can go wrong: 400 naming the parameter.

use aig_domain::{Error, Month, Nano};
use aig_store::UsageLine;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::{Api, ApiState};

/// What requests without a tag are called.
const UNTAGGED: &str = "(untagged)";

/// A month by tag.
#[derive(Serialize, ToSchema)]
pub struct UsageByTag {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The month, such as `2026-11`.
    pub month: String,
    /// At most 1000 tags, most expensive first.
    pub data: Vec<TagUsage>,
    /// Whether there are more.
    pub has_more: bool,
}

/// What one tag cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct TagUsage {
    /// The tag, or `(untagged)`.
    pub label: String,
    /// The tag; null for the requests that carried none.
    pub tag: Option<String>,
    /// How many requests were charged.
    pub requests: i64,
    /// What they cost, margin included.
    #[schema(value_type = f64)]
    pub cost_cents: Number,
    /// The tag's monthly cap as it is now; null for no cap.
    #[schema(value_type = Option<f64>)]
    pub cap_cents: Option<Number>,
}

impl From<UsageLine> for TagUsage {
    fn from(line: UsageLine) -> Self {
        Self {
            label: line.id.clone().unwrap_or_else(|| UNTAGGED.to_owned()),
            tag: line.id,
            requests: line.requests,
            cost_cents: line.cost.cents_json(),
            cap_cents: line.cap.map(Nano::cents_json),
        }
    }
}

/// The month that is asked for; this one when the query names none.
///
/// # Errors
/// A 400 that names the parameter.
pub fn read_month(api: &ApiState, query: &Query) -> Result<Month, Error> {
    let Some(text) = query.text("month")? else { return Ok(Month::of(api.app.clock.now())) };
    let message = "`month` must be a month written as YYYY-MM, such as 2026-11.";
    Month::parse(text).ok_or_else(|| Error::invalid("month", message))
}

/// A month's cost by tag.
///
/// A sub-account's key sees its own requests, from usage rows, which are kept for 90 days; refunds are not taken off there.
#[utoipa::path(
    get,
    path = "/v1/usage/by-tag",
    params(("month" = Option<String>, Query, description = "`YYYY-MM`, a calendar month in UTC; this one when missing.")),
    responses((status = 200, description = "The month.", body = UsageByTag)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<UsageByTag>, ApiError> {
    let month = read_month(&api, &query)?;
    let (store, id) = (&api.app.store, &caller.account_id);
    let usage = if caller.key.is_of_sub_account() {
        store.usage_of_sub_account_by_tag(id, month).await?
    } else {
        store.usage_by_tag(id, month).await?
    };
    let data = usage.lines.into_iter().map(TagUsage::from).collect();
    Ok(Json(UsageByTag { object: "list", month: month.to_string(), data, has_more: usage.has_more }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_tag_has_a_label() {
        let line = |id: Option<&str>| UsageLine {
            id: id.map(Into::into),
            name: None,
            requests: 2,
            cost: Nano(4_389_000),
            cap: Some(Nano::ZERO),
        };
        let tagged = serde_json::json!({"label": "a", "tag": "a", "requests": 2, "cost_cents": 0.4389, "cap_cents": 0});
        assert_eq!(serde_json::to_value(TagUsage::from(line(Some("a")))).unwrap(), tagged);
        let untagged = TagUsage::from(line(None));
        assert_eq!((untagged.label.as_str(), untagged.tag), (UNTAGGED, None));
    }
}
