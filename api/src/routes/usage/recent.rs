//! `GET /v1/usage/recent`: the caller's latest requests that reached a provider, or might have, newest first. A sub-account's
//! key sees its own. What can go wrong: 400 naming the parameter.

use aig_domain::Error;
use aig_store::{OpenRequest, RequestFilter, RequestRow};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

/// A page of requests.
#[derive(Serialize, ToSchema)]
pub struct RequestList {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The requests, newest first. They are kept for 90 days.
    pub data: Vec<UsageRecord>,
    /// Whether there are older ones: ask again with `after` set to `last_id`.
    pub has_more: bool,
    /// The id of the first.
    pub first_id: Option<String>,
    /// The id of the last.
    pub last_id: Option<String>,
}

/// What is on record about one request.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageRecord {
    /// `req_…`, the `X-Request-Id` of its answer.
    pub request_id: String,
    /// The job that it submitted, if it did.
    pub job_id: Option<String>,
    /// The model's full id.
    pub model: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// The HTTP status of a chat call; of a job 200, or what its error would have been. Null while it is under way.
    pub status: Option<u16>,
    /// `completed`, `failed`, `client_left`, `uncertain` (the provider may have done the work, nobody knows), or `running`.
    pub outcome: String,
    /// How long it took; null while it is under way.
    pub latency_ms: Option<u64>,
    /// What it was charged, margin included.
    #[schema(value_type = f64)]
    pub cost_cents: Number,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Those of the tokens read that came out of the provider's cache.
    pub cached_tokens: u64,
    /// Whether the tokens were counted here, since the provider did not.
    pub estimated: bool,
    /// The label of its cost.
    pub tag: Option<String>,
    /// The sub-account whose key it was.
    pub sub_account_id: Option<String>,
    /// The key; of rotated keys the first.
    pub key_id: String,
    /// When it came, in ISO 8601, UTC.
    pub created_at: String,
}

impl From<&RequestRow> for UsageRecord {
    fn from(row: &RequestRow) -> Self {
        Self {
            request_id: row.id.clone(),
            job_id: row.job_id.clone(),
            model: Some(row.model.clone()),
            provider: Some(row.provider.clone()),
            status: Some(row.status),
            outcome: row.outcome.as_str().to_owned(),
            latency_ms: Some(row.duration_ms),
            cost_cents: row.cost.cents_json(),
            input_tokens: row.used.input_tokens,
            output_tokens: row.used.output_tokens,
            cached_tokens: row.used.cached_tokens,
            estimated: row.estimated,
            tag: row.payer.tag.clone(),
            sub_account_id: row.payer.sub_account_id.clone(),
            key_id: row.payer.key_id.clone(),
            created_at: row.created_at.iso(),
        }
    }
}

impl UsageRecord {
    /// A request that is known by its reservation alone.
    pub fn open(open: &OpenRequest, outcome: &str) -> Self {
        Self {
            request_id: open.id.clone(),
            job_id: open.job_id.clone(),
            model: open.model.clone(),
            provider: open.provider.clone(),
            status: None,
            outcome: outcome.to_owned(),
            latency_ms: None,
            cost_cents: 0.into(),
            input_tokens: 0,
            output_tokens: 0,
            cached_tokens: 0,
            estimated: false,
            tag: open.payer.tag.clone(),
            sub_account_id: open.payer.sub_account_id.clone(),
            key_id: open.payer.key_id.clone(),
            created_at: open.created_at.iso(),
        }
    }
}

/// List recent requests.
#[utoipa::path(
    get,
    path = "/v1/usage/recent",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1000; 100 when missing."),
        ("after" = Option<String>, Query, description = "Only requests older than this one."),
        ("tag" = Option<String>, Query, description = "Only those with this tag."),
        ("sub_account_id" = Option<String>, Query, description = "Only those of this sub-account."),
        ("model" = Option<String>, Query, description = "Only those for the model with this full id."),
    ),
    responses((status = 200, description = "A page of requests.", body = RequestList)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<RequestList>, ApiError> {
    let limit = query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let filter = RequestFilter {
        of: caller.jobs(),
        sub_account_id: query.text("sub_account_id")?,
        tag: query.text("tag")?,
        model: query.text("model")?,
    };
    let page = api.app.store.recent_requests(filter, query.text("after")?, limit).await?;
    let page = page.ok_or_else(|| Error::invalid("after", "`after` must be the id of one of your requests."))?;
    let data: Vec<UsageRecord> = page.items.iter().map(UsageRecord::from).collect();
    let (first_id, last_id) =
        (data.first().map(|it| it.request_id.clone()), data.last().map(|it| it.request_id.clone()));
    Ok(Json(RequestList { object: "list", data, has_more: page.has_more, first_id, last_id }))
}
