//! What the two file routes share: the bytes of a result, whole or in part, with headers that make them harmless.
//!
//! It promises: the bytes come directly (never a redirect: the shipped Python client would read an empty file), ranges
//! and conditions work as in RFC 9110, and nothing served here runs as a page of this origin. Tests: `serve/tests.rs`.

use aig_domain::job::{Job, JobResult};
use aig_domain::{Error, ErrorKind, Millis};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, REFERRER_POLICY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::error::ApiError;
use crate::range::{Part, part};
use crate::state::ApiState;

/// Lets a browser show the picture or play the clip, and nothing else.
const POLICY: &str = "default-src 'none'; img-src 'self'; media-src 'self'; sandbox";
const MAX_AGE: u64 = 300;

/// The 404 of a file that does not exist for the caller.
pub fn no_such_file() -> Error {
    Error::not_found(
        "There is no such file. The job may not have ended, may have failed, or its result was deleted after 7 days; \
         read the job to see.",
    )
}

/// The result of `job` if it has one of that name that is still kept at `now`.
pub fn find<'a>(job: &'a Job, filename: &str, now: Millis) -> Result<&'a JobResult, Error> {
    let kept = job.expires_at.is_none_or(|expires| now < expires);
    job.result.as_ref().filter(|result| kept && result.filename == filename).ok_or_else(no_such_file)
}

/// Answers a `GET` or `HEAD` of the file `filename` of `job`.
pub async fn serve(
    api: &ApiState,
    method: &Method,
    asked: &HeaderMap,
    job: &Job,
    filename: &str,
) -> Result<Response, ApiError> {
    let now = api.app.clock.now();
    let result = find(job, filename, now)?;
    let found = api.app.files.size(&result.file_key).await.map_err(|error| storage_down(&error))?;
    let len = found.ok_or_else(|| lost(job))?;
    let max_age = job.expires_at.map_or(MAX_AGE, |expires| now.until(expires).as_secs().min(MAX_AGE));
    let headers = file_headers(result, max_age)?;
    if is_known(asked, &result.sha256) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let (status, bytes) = match wanted(asked, &result.sha256, len) {
        Part::Whole => (StatusCode::OK, 0..len),
        Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Part::Unsatisfiable => return Ok(unsatisfiable(len)),
    };
    let mut response = (status, headers).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{len}", bytes.start, bytes.end - 1);
        response.headers_mut().insert(CONTENT_RANGE, header(&range)?);
    }
    if *method != Method::HEAD {
        let stream = api.app.files.read(&result.file_key, bytes).await.map_err(|error| storage_down(&error))?;
        *response.body_mut() = Body::from_stream(stream);
    }
    Ok(response)
}

/// The part of the file that is asked for. A range is kept only if the file is still the one that `If-Range` names.
fn wanted(asked: &HeaderMap, sha256: &str, len: u64) -> Part {
    let same = asked.get(IF_RANGE).is_none_or(|etag| etag.as_bytes() == etag_of(sha256).as_bytes());
    part(asked.get(RANGE).filter(|_| same).and_then(|value| value.to_str().ok()), len)
}

/// Whether the client says that it has this very file.
fn is_known(asked: &HeaderMap, sha256: &str) -> bool {
    let etag = etag_of(sha256);
    let tags =
        asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    tags.map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

fn etag_of(sha256: &str) -> String {
    format!("\"{sha256}\"")
}

fn file_headers(result: &JobResult, max_age: u64) -> Result<HeaderMap, Error> {
    Ok(HeaderMap::from_iter([
        (CONTENT_TYPE, header(&result.content_type)?),
        (CONTENT_DISPOSITION, header(&disposition(result))?),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (ETAG, header(&etag_of(&result.sha256))?),
        (CACHE_CONTROL, header(&format!("private, max-age={max_age}"))?),
    ]))
}

/// Pictures, sound and clips may be shown in place; everything else is saved.
fn disposition(result: &JobResult) -> String {
    let kind = result.content_type.split_once('/').map_or("", |(kind, _)| kind);
    let safe = matches!(kind, "audio" | "image" | "video") && !result.content_type.contains("svg");
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let name: String = result.filename.bytes().map(|byte| char::from(if plain(&byte) { byte } else { b'_' })).collect();
    format!("{}; filename=\"{name}\"", if safe { "inline" } else { "attachment" })
}

fn unsatisfiable(len: u64) -> Response {
    let message = format!("The range lies outside the file, which has {len} bytes.");
    let mut response = ApiError(Error::new(ErrorKind::RangeNotSatisfiable, message)).into_response();
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{len}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

/// The value of a header made of what the database holds.
fn header(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| {
        tracing::error!("a stored result has a name, type or hash that cannot be a header");
        Error::internal()
    })
}

fn lost(job: &Job) -> Error {
    tracing::error!(job = job.id, "the file of a completed job is not in the file store");
    no_such_file()
}

fn storage_down(error: &aig_files::FilesError) -> Error {
    tracing::error!(%error, "the file store failed");
    Error::unavailable("The gateway's file store does not answer. Try again shortly; nothing is charged.", 5)
}

#[cfg(test)]
mod tests;
