//! `GET /v1/files/jobs/{job_id}/{filename}/public`: the same bytes for whoever has a signed link. What can go wrong: 400
//! when the link is damaged, forged or expired; 404 when the file is gone; 416.

use aig_domain::signing::{FileToken, verify_file};
use aig_domain::{Error, ErrorKind};
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Method};

use super::serve::{no_such_file, serve};
use crate::error::ApiError;
use crate::middleware::query::Query;
use crate::state::Api;

/// The token of a link; `None` when a part is missing, given twice, or `exp` is not written as we write it.
fn read_token(query: &Query) -> Option<FileToken> {
    let part = |name| query.text(name).ok().flatten();
    let (token, exp, k) = (part("token")?, part("exp")?, part("k")?);
    let seconds: i64 = exp.parse().ok()?;
    (seconds.to_string() == exp).then(|| FileToken { token: token.to_owned(), exp: seconds, k: k.to_owned() })
}

fn bad_link() -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        "This link is not valid: it is damaged or has expired. Read the job again for a fresh one.",
    )
}

/// Download the result of a job by a signed link.
///
/// The link is the permission; no key is needed.
#[utoipa::path(
    get,
    path = "/v1/files/jobs/{job_id}/{filename}/public",
    params(
        ("job_id" = String, Path, description = "`job_…`"),
        ("filename" = String, Path, description = "Such as `video.mp4`."),
        ("token" = String, Query, description = "The signature."),
        ("exp" = i64, Query, description = "When the link ends, Unix seconds."),
        ("k" = String, Query, description = "Which key signed."),
        ("Range" = Option<String>, Header, description = "One byte range."),
    ),
    responses(
        (status = 200, description = "The file.", content_type = "application/octet-stream", body = [u8]),
        (status = 206, description = "A part of it.", content_type = "application/octet-stream", body = [u8]),
    ),
)]
pub async fn handler(
    State(api): State<Api>,
    Path((job_id, filename)): Path<(String, String)>,
    query: Query,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let token = read_token(&query).ok_or_else(bad_link)?;
    if !verify_file(&api.app.ring, &job_id, &filename, &token, api.app.clock.now()) {
        return Err(bad_link().into());
    }
    let job = api.app.store.job_for_file(&job_id).await?.ok_or_else(no_such_file)?;
    serve(&api, &method, &headers, &job, &filename).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_exactly_as_it_was_written() {
        let read = |query: &str| read_token(&Query::parse(query));
        let token = FileToken { token: "t".into(), exp: 7, k: "a".into() };
        assert_eq!(read("token=t&exp=7&k=a"), Some(token.clone()));
        assert_eq!(read("k=a&exp=7&token=t&utm_source=x"), Some(token));
        for bad in [
            "",
            "token=t&exp=7",
            "token=t&k=a",
            "exp=7&k=a",
            "token=t&exp=+7&k=a",
            "token=t&exp=%2B7&k=a",
            "token=t&exp=07&k=a",
            "token=t&exp=7.0&k=a",
            "token=t&exp=99999999999999999999&k=a",
            "token=t&exp=7&exp=8&k=a",
            "token=t&token=t&exp=7&k=a",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
