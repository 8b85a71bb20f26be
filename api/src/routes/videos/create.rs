//! `POST /v1/videos/generations`. See [`crate::routes::jobs::create`] for what it does and what can go wrong.

use aig_domain::catalog::Modality;
use aig_domain::job_request::JobRecord;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::context::Ctx;
use crate::routes::jobs::create::{VideoRequest, accept};
use crate::state::Api;

/// Generate a video clip.
///
/// Read the job at `/v1/jobs/{id}`, or give a `webhook_url`.
#[utoipa::path(
    post,
    path = "/v1/videos/generations",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key makes no second job, for 7 days."),
        ("x-aig-tag" = Option<String>, Header, description = "The label of the job's cost, at most 64 characters."),
    ),
    request_body = VideoRequest,
    responses((status = 202, description = "The job is stored and will be done.", body = JobRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    Ctx(context): Ctx,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    accept(&api, &context, caller, "POST /v1/videos/generations", Modality::Video, request).await
}
