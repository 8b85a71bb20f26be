//! `GET /v1/jobs`: the caller's jobs, newest first. What can go wrong: 400 naming the parameter.

use aig_domain::Error;
use aig_domain::job::JobStatus;
use aig_domain::job_request::JobRecord;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// A page of jobs.
#[derive(Serialize, ToSchema)]
pub struct JobList {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The jobs, newest first.
    pub data: Vec<JobRecord>,
    /// Whether there are older ones: ask again with `after` set to `last_id`.
    pub has_more: bool,
    /// The id of the first.
    pub first_id: Option<String>,
    /// The id of the last.
    pub last_id: Option<String>,
}

fn read_status(query: &Query) -> Result<Option<JobStatus>, Error> {
    let Some(word) = query.text("status")? else { return Ok(None) };
    let words = || JobStatus::ALL.map(|status| format!("`{}`", status.as_str())).join(", ");
    let status = JobStatus::parse(word);
    status.map(Some).ok_or_else(|| Error::invalid("status", format!("`status` must be one of {}.", words())))
}

/// List jobs.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 100; 20 when missing."),
        ("after" = Option<String>, Query, description = "Only jobs older than this one."),
        ("status" = Option<String>, Query, description = "`queued`, `processing`, `completed` or `failed`."),
    ),
    responses((status = 200, description = "A page of jobs.", body = JobList)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<JobList>, ApiError> {
    let limit = query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let (status, after) = (read_status(&query)?, query.text("after")?);
    let page = api.app.store.list_jobs(caller.jobs(), status, after, limit).await?;
    let page = page.ok_or_else(|| Error::invalid("after", "`after` must be the id of one of your jobs."))?;
    let now = api.app.clock.now();
    let data: Vec<JobRecord> = page.jobs.iter().map(|job| api.app.links.record(job, now)).collect();
    let (first_id, last_id) = (data.first().map(|job| job.id.clone()), data.last().map(|job| job.id.clone()));
    Ok(Json(JobList { object: "list", data, has_more: page.has_more, first_id, last_id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_the_contract_are_statuses() {
        assert_eq!(read_status(&Query::parse("")).unwrap(), None);
        assert_eq!(read_status(&Query::parse("status=failed")).unwrap(), Some(JobStatus::Failed));
        for bad in ["status=", "status=cancelled", "status=Failed", "status=failed&status=failed"] {
            assert_eq!(read_status(&Query::parse(bad)).unwrap_err().param.as_deref(), Some("status"), "{bad}");
        }
    }
}
