//! `GET /v1/files/jobs/{job_id}/{filename}/signed`: a link that needs no key, for as long as the caller wants and the file
//! is kept. What can go wrong: 400 naming `expires_in`; 404, also for somebody else's job.

use std::time::Duration;

use aig_domain::Millis;
use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::serve::{find, no_such_file};
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

const SHORTEST: u64 = 60;
const LONGEST: u64 = 7 * 24 * 3600;
const DEFAULT: u64 = 3600;

/// A link to a file.
#[derive(Serialize, ToSchema)]
pub struct SignedUrl {
    /// The link.
    pub url: String,
    /// When it ends, Unix seconds; never later than the file.
    pub expires_at: i64,
}

/// When a link made at `now` for `seconds` ends: never later than the file itself.
fn ends_at(now: Millis, seconds: u64, file_expires: Option<Millis>) -> i64 {
    let wanted = now.plus(Duration::from_secs(seconds));
    file_expires.map_or(wanted, |expires| expires.min(wanted)).unix_seconds()
}

/// Make a signed link to the result of a job.
///
/// The link needs no key.
#[utoipa::path(
    get,
    path = "/v1/files/jobs/{job_id}/{filename}/signed",
    params(
        ("job_id" = String, Path, description = "`job_…`"),
        ("filename" = String, Path, description = "Such as `video.mp4`."),
        ("expires_in" = Option<u64>, Query, description = "Seconds, 60 to 604800; 3600 when missing."),
    ),
    responses((status = 200, description = "The link.", body = SignedUrl)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path((job_id, filename)): Path<(String, String)>,
    query: Query,
) -> Result<Json<SignedUrl>, ApiError> {
    let seconds = query.number("expires_in", SHORTEST..=LONGEST)?.unwrap_or(DEFAULT);
    let job = api.app.store.job(&caller.account_id, &job_id).await?.ok_or_else(no_such_file)?;
    let now = api.app.clock.now();
    find(&job, &filename, now)?;
    let expires_at = ends_at(now, seconds, job.expires_at);
    Ok(Json(SignedUrl { url: api.app.links.file(&job_id, &filename, expires_at), expires_at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_never_outlives_its_file() {
        assert_eq!(ends_at(Millis(5_000), 60, None), 65);
        assert_eq!(ends_at(Millis(5_000), 60, Some(Millis(70_000))), 65);
        assert_eq!(ends_at(Millis(5_000), 60, Some(Millis(20_000))), 20);
    }
}
