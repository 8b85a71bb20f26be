//! `POST /v1/chat/completions`: one chat completion, as JSON or as a stream of server-sent events.
//!
//! The body goes to the provider as it came. What can go wrong: 400, 402 below a cap, 404 for a model that does not exist, 413,
//! 415, 429, 502, 503, 504; once a stream has begun, an error event in it.

use std::convert::Infallible;

use aig_domain::catalog::Modality;
use aig_inference::{Charged, ChatAnswer, ChatBody as ChatAnswerBody, ChatRequest};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use utoipa::ToSchema;

use aig_domain::json::RawObject;

use crate::error::{ApiError, event};
use crate::middleware::auth::Caller;
use crate::middleware::body::read_json;
use crate::middleware::context::Ctx;
use crate::middleware::headers;
use crate::state::Api;

const COST: HeaderName = HeaderName::from_static("x-cost-cents");
const CACHED: HeaderName = HeaderName::from_static("x-cached-input-units");
const WARNING: HeaderName = HeaderName::from_static("x-aig-warning");

/// A chat request in the OpenAI dialect. All other members go to the provider as they are.
#[derive(ToSchema)]
pub struct ChatBody {
    /// `provider/name`; the default model when missing or `auto`.
    pub model: Option<String>,
    /// The conversation so far.
    #[schema(value_type = Vec<Object>)]
    pub messages: Vec<serde_json::Value>,
    /// Whether to answer with a stream of server-sent events.
    pub stream: Option<bool>,
}

/// Complete a chat.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    params(("x-aig-tag" = Option<String>, Header, description = "The label of the request's cost, at most 64 characters.")),
    request_body = ChatBody,
    responses((
        status = 200,
        description = "A chat completion in the OpenAI dialect; with `stream` its chunks, then `[DONE]`.",
        content((Object = "application/json"), (String = "text/event-stream")),
    )),
)]
pub async fn handler(
    State(api): State<Api>,
    Ctx(context): Ctx,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let tag = headers::tag(&parts.headers)?;
    let body = RawObject::parse(&read_json(&parts.headers, body, api.chat_body).await?)?;
    let asked: Option<String> = body.read("model", "a string")?;
    let model = caller.model(&api, Modality::Text, asked.as_deref())?;
    let payer = caller.key.payer(tag);
    let request = ChatRequest {
        body,
        model,
        request_id: context.request_id.clone(),
        is_capped: caller.key.is_capped(&payer),
        payer,
        process: api.process.id(),
    };
    let ChatAnswer { body, warning } = api.app.chat.complete(request, api.shutdown.streams_must_end()).await?;
    let mut response = match body {
        ChatAnswerBody::Json(body, charged) => {
            let mut response = ([(CONTENT_TYPE, "application/json")], body).into_response();
            write_cost(&charged, response.headers_mut());
            response
        }
        ChatAnswerBody::Stream(events) => {
            // A proxy that buffers would hold back the first words until the last.
            let headers = [
                (CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
                (CACHE_CONTROL.as_str(), "no-cache"),
                ("x-accel-buffering", "no"),
            ];
            let events = events.map(move |item| {
                Ok::<Bytes, Infallible>(item.unwrap_or_else(|error| event(&error, &context.request_id).into()))
            });
            (headers, Body::from_stream(events)).into_response()
        }
    };
    if let Some(warning) = warning.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(WARNING, warning);
    }
    Ok(response)
}

/// What the request cost, and how much of its input came from the provider's cache.
fn write_cost(charged: &Charged, headers: &mut HeaderMap) {
    if let Some(cost) = charged.cost.and_then(|cost| HeaderValue::try_from(cost.cents_json().to_string()).ok()) {
        headers.insert(COST, cost);
    }
    if charged.usage.cached_tokens > 0 {
        headers.insert(CACHED, charged.usage.cached_tokens.into());
    }
}
