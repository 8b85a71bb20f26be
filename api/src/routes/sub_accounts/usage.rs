//! `GET /v1/sub-accounts/{id}/usage`: what a sub-account used in the last days, by model and by day. Its parent's keys and its
//! own may ask. What can go wrong: 400 naming the parameter, 404, also for somebody else's sub-account.

use std::time::Duration;

use aig_domain::{Error, Nano};
use aig_store::{DayUsage, ModelUsage};
use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use super::get::no_such_sub_account;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

const DEFAULT_WINDOW: &str = "30d";
/// How long usage rows are kept.
const MAX_HOURS: u32 = 90 * 24;

/// What a sub-account used.
#[derive(Serialize, ToSchema)]
pub struct SubAccountUsageRecord {
    /// Always `sub_account_usage`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// `sa_…`
    pub sub_account_id: String,
    /// The window that was asked for, such as `30d`.
    pub window: String,
    /// When it begins, Unix seconds.
    pub from: i64,
    /// When it ends, which is now.
    pub to: i64,
    /// All of it.
    pub summary: UsageSummary,
    /// At most 1000 models, most expensive first.
    pub by_model: Vec<ModelLine>,
    /// The days in UTC on which something was used, oldest first.
    pub by_day: Vec<DayLine>,
}

/// All that was used. What was given back later is not taken off.
#[derive(Serialize, ToSchema)]
pub struct UsageSummary {
    /// How many requests were charged.
    pub requests: i64,
    /// What they cost, margin included.
    #[schema(value_type = f64)]
    pub cost_cents: Number,
    /// Tokens read.
    pub input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
}

/// What one model was used for.
#[derive(Serialize, ToSchema)]
pub struct ModelLine {
    /// The model's full id.
    pub model_id: String,
    /// How many requests were charged.
    pub requests: i64,
    /// What they cost.
    #[schema(value_type = f64)]
    pub cost_cents: Number,
}

/// What was used on one day.
#[derive(Serialize, ToSchema)]
pub struct DayLine {
    /// The day in UTC, such as `2026-11-03`.
    pub date: String,
    /// How many requests were charged.
    pub requests: i64,
    /// What they cost.
    #[schema(value_type = f64)]
    pub cost_cents: Number,
}

impl From<ModelUsage> for ModelLine {
    fn from(ModelUsage { model, sums }: ModelUsage) -> Self {
        Self { model_id: model, requests: sums.requests, cost_cents: Nano(sums.cost).cents_json() }
    }
}

impl From<DayUsage> for DayLine {
    fn from(DayUsage { begins, sums }: DayUsage) -> Self {
        Self { date: begins.date(), requests: sums.requests, cost_cents: Nano(sums.cost).cents_json() }
    }
}

/// How far back `window` goes: days, such as `30d`, or hours, such as `24h`.
fn read_window(window: &str) -> Result<Duration, Error> {
    let hours = match (window.strip_suffix('d'), window.strip_suffix('h')) {
        (Some(days), _) => number(days).and_then(|days| days.checked_mul(24)),
        (_, hours) => hours.and_then(number),
    };
    let hours = hours.filter(|hours| (1..=MAX_HOURS).contains(hours));
    let message = "`window` must be a number of days from `1d` to `90d`, or of hours from `1h` to `2160h`.";
    hours.map(|hours| Duration::from_hours(hours.into())).ok_or_else(|| Error::invalid("window", message))
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Read a sub-account's usage.
#[utoipa::path(
    get,
    path = "/v1/sub-accounts/{id}/usage",
    params(
        ("id" = String, Path, description = "`sa_…`"),
        ("window" = Option<String>, Query, description = "`1d` to `90d`, or hours such as `24h`; `30d` when missing."),
    ),
    responses((status = 200, description = "What it used.", body = SubAccountUsageRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<SubAccountUsageRecord>, ApiError> {
    // A sub-account's key may ask about itself, and about nobody else.
    let known = if caller.key.is_of_sub_account() {
        caller.account_id == id
    } else {
        api.app.store.sub_account(&caller.account_id, &id).await?.is_some()
    };
    if !known {
        return Err(no_such_sub_account().into());
    }
    let window = query.text("window")?.unwrap_or(DEFAULT_WINDOW);
    let to = api.app.clock.now();
    let from = to.minus(read_window(window)?);
    let usage = api.app.store.usage_of_sub_account(&id, from, to.plus(Duration::from_millis(1))).await?;
    let total = usage.total();
    Ok(Json(SubAccountUsageRecord {
        object: "sub_account_usage",
        sub_account_id: id,
        window: window.to_owned(),
        from: from.unix_seconds(),
        to: to.unix_seconds(),
        summary: UsageSummary {
            requests: total.requests,
            cost_cents: Nano(total.cost).cents_json(),
            input_tokens: total.input_tokens,
            output_tokens: total.output_tokens,
        },
        by_model: usage.by_model.into_iter().map(ModelLine::from).collect(),
        by_day: usage.by_day.into_iter().map(DayLine::from).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_days_or_hours() {
        for (text, hours) in [("1d", 24), ("30d", 720), ("90d", 2160), ("1h", 1), ("24h", 24), ("2160h", 2160)] {
            assert_eq!(read_window(text).unwrap(), Duration::from_hours(hours), "{text}");
        }
        for bad in ["", "d", "30", "0d", "91d", "2161h", "-1d", "+1d", "1.5d", "1w", "d1", "99999999999d", "400000000d"]
        {
            assert_eq!(read_window(bad).unwrap_err().param.as_deref(), Some("window"), "{bad}");
        }
    }
}
