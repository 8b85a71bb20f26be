//! `POST /v1/jobs/{id}/cancel`: end a job that has not ended. It then reads `failed` with `error_code: "cancelled"` and
//! costs nothing; a job that has ended stays as it is. Always 200 with the record: the shipped clients read a body. What
//! can go wrong: 404, also for somebody else's job.

use aig_domain::job_request::JobRecord;
use axum::Json;
use axum::extract::{Path, State};

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::routes::jobs::get::no_such_job;
use crate::state::Api;

/// Cancel a job.
///
/// `DELETE /v1/jobs/{id}` does the same. A job that has ended stays as it is.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/cancel",
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, description = "The job, which has ended.", body = JobRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<JobRecord>, ApiError> {
    let job = api.app.tasks.cancel(&caller.account_id, &id).await?.ok_or_else(no_such_job)?;
    Ok(Json(api.app.links.record(&job, api.app.clock.now())))
}
