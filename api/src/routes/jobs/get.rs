//! `GET /v1/jobs/{id}`: a job as it stands. Never 304: the shipped clients cannot read one. What can go wrong: 404, also
//! for somebody else's job.

use aig_domain::job_request::JobRecord;
use axum::Json;
use axum::extract::{Path, State};

use aig_domain::Error;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

/// The 404 of a job that does not exist for the caller.
pub fn no_such_job() -> Error {
    Error::not_found("There is no such job. Check its id, and that the key belongs to the account that made it.")
}

/// Read a job.
///
/// `result_url` is fresh on every read and good for 24 hours.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, description = "The job.", body = JobRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<JobRecord>, ApiError> {
    let job = api.app.store.job(&caller.account_id, &id).await?.ok_or_else(no_such_job)?;
    Ok(Json(api.app.links.record(&job, api.app.clock.now())))
}
