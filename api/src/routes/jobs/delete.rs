//! `DELETE /v1/jobs/{id}`: cancel a job, as the shipped clients do it. See [`super::cancel`].

use aig_domain::job_request::JobRecord;
use axum::Json;
use axum::extract::{Path, State};

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::routes::jobs::cancel;
use crate::state::Api;

/// Cancel a job.
///
/// `POST /v1/jobs/{id}/cancel` does the same. A job that has ended stays as it is.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, description = "The job, which has ended.", body = JobRecord)),
)]
pub async fn handler(state: State<Api>, caller: Caller, id: Path<String>) -> Result<Json<JobRecord>, ApiError> {
    cancel::handler(state, caller, id).await
}
