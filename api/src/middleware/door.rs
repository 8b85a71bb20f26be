//! The outermost layer: gives each request an id, refuses what no route should see, and sees to it that every answer is
//! whole.
//!
//! It promises: every answer carries `X-Request-Id`, also an error's and a panic's; every error has the one envelope; a
//! panic costs one 500 and nothing else; every request is one log line and two metrics, which name the route's pattern and
//! never the query, a body or a key. A client that leaves before its answer is logged with status 499. Tests:
//! `door/tests.rs`.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use aig_domain::{Clock, Error, ErrorKind, id};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body::Body as _;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::context::Context;
use crate::error::{ApiError, envelope};
use crate::serve::Peer;

/// The longest URI, in bytes.
const MAX_URI: usize = 8 * 1024;
/// The id to quote when asking for help.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// In the log and the metrics: the client left before there was an answer.
const CLIENT_LEFT: u16 = 499;

/// Everything behind the socket.
#[derive(Clone)]
pub struct Door {
    router: Router,
    clock: Arc<dyn Clock>,
}

impl Door {
    /// A door in front of `router`.
    pub fn new(router: Router, clock: Arc<dyn Clock>) -> Self {
        Self { router, clock }
    }

    /// Answers one request. Cannot fail, and a panic behind it does not get through.
    pub async fn answer<B>(self, mut request: Request<B>) -> Result<Response, Infallible>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let context = Arc::new(Context::new(id::new("req_", self.clock.now()), peer));
        request.extensions_mut().insert(Arc::clone(&context));
        let mut visit = Visit::begin(request.method(), Arc::clone(&context));
        let span = tracing::info_span!("request", id = context.request_id);
        let mut response = if let Err(error) = check_uri(&request) {
            ApiError(error).into_response()
        } else {
            let answer = AssertUnwindSafe(self.router.oneshot(request.map(Body::new))).catch_unwind();
            match answer.instrument(span).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_panic) => {
                    metrics::counter!("aig_panics_total", "where" => "http").increment(1);
                    ApiError(Error::internal()).into_response()
                }
            }
        };
        finish(&mut response, &context.request_id);
        visit.answered(response.status().as_u16());
        Ok(response)
    }
}

/// Makes an answer whole: the envelope of an error, the request id, and headers that are safe everywhere.
fn finish(response: &mut Response, request_id: &str) {
    if let Some(error) = response.extensions_mut().remove::<Error>() {
        let body = envelope(&error, request_id, response.headers_mut());
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    debug_assert!(response.status().as_u16() < 400 || !response.body().is_end_stream(), "an error without a body");
}

/// Refuses a URI that is too long or whose path is not UTF-8 in correct percent encoding without NUL.
fn check_uri<B>(request: &Request<B>) -> Result<(), Error> {
    let uri = request.uri();
    if uri.path_and_query().is_some_and(|text| text.as_str().len() > MAX_URI) {
        return Err(Error::new(ErrorKind::UriTooLong, "The URI is longer than 8 kB. Nothing was done."));
    }
    if path_is_clean(uri.path()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidRequest,
        "The path of the URI is not valid: it must be UTF-8, percent-encoded, without NUL. Nothing was done.",
    ))
}

fn path_is_clean(path: &str) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |i: usize| tail.get(i).and_then(|byte| char::from(*byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return false };
        decoded.extend(u8::try_from(high * 16 + low));
        rest = &tail[2..];
    }
    !decoded.contains(&0) && std::str::from_utf8(&decoded).is_ok()
}

/// The log line and the metrics of one request, written when it is dropped.
struct Visit {
    method: &'static str,
    context: Arc<Context>,
    began: Instant,
    status: u16,
}

impl Visit {
    fn begin(method: &Method, context: Arc<Context>) -> Self {
        Self { method: method_name(method), context, began: Instant::now(), status: CLIENT_LEFT }
    }

    fn answered(&mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let (took, route) = (self.began.elapsed(), self.context.route());
        let labels = [("method", self.method), ("route", route)];
        metrics::histogram!("aig_http_request_duration_seconds", &labels).record(took.as_secs_f64());
        metrics::counter!("aig_http_requests_total", "method" => self.method, "route" => route, "status" => self.status.to_string())
            .increment(1);
        tracing::info!(
            request_id = self.context.request_id,
            method = self.method,
            route,
            status = self.status,
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            account = self.context.account(),
            "request"
        );
    }
}

/// A method of a request, or `other`: clients must not be able to make up values of a label.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests;
