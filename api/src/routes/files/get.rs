//! `GET /v1/files/jobs/{job_id}/{filename}`: the bytes of a result, for whoever has the key. What can go wrong: 404, also
//! for somebody else's job; 416.

use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Method};

use super::serve::{no_such_file, serve};
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

/// Download the result of a job.
///
/// `Range`, `If-Range` and `If-None-Match` work.
#[utoipa::path(
    get,
    path = "/v1/files/jobs/{job_id}/{filename}",
    params(
        ("job_id" = String, Path, description = "`job_…`"),
        ("filename" = String, Path, description = "Such as `video.mp4`."),
        ("Range" = Option<String>, Header, description = "One byte range."),
    ),
    responses(
        (status = 200, description = "The file.", content_type = "application/octet-stream", body = [u8]),
        (status = 206, description = "A part of it.", content_type = "application/octet-stream", body = [u8]),
    ),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path((job_id, filename)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = api.app.store.job(&caller.account_id, &job_id).await?.ok_or_else(no_such_file)?;
    serve(&api, &method, &headers, &job, &filename).await
}
