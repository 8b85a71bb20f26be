//! The only table from a kind of error to what the client sees: status, type, and whether a retry can help.
//!
//! A handler fails with an [`ApiError`]. It becomes a response without a body that carries the [`Error`]; the outermost
//! layer ([`crate::middleware::door`]) turns that into the envelope with [`envelope`], since only it knows the request id.
//! So every error has the same shape, whoever made it. Tests: `tests` at the end, and those of the door.

use aig_domain::{Error, ErrorKind};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

/// Tells the official SDKs not to repeat a request that cannot succeed.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What a handler fails with.
#[derive(Clone, Debug)]
pub struct ApiError(pub Error);

impl<E: Into<Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = wire(self.0.kind).status;
        response.extensions_mut().insert(self.0);
        response
    }
}

/// How one kind of error reads on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The HTTP status, which is `code` in the body too.
    pub status: StatusCode,
    /// `type` in the body.
    pub name: &'static str,
    /// Whether the same request may succeed later.
    pub retry_can_help: bool,
}

const fn wire_of(status: StatusCode, name: &'static str, retry_can_help: bool) -> Wire {
    Wire { status, name, retry_can_help }
}

/// The table.
pub fn wire(kind: ErrorKind) -> Wire {
    match kind {
        ErrorKind::InvalidRequest => wire_of(StatusCode::BAD_REQUEST, "invalid_request_error", false),
        ErrorKind::Authentication => wire_of(StatusCode::UNAUTHORIZED, "authentication_error", false),
        ErrorKind::ScopeExceeded => wire_of(StatusCode::FORBIDDEN, "scope_exceeded", false),
        ErrorKind::ModelNotFound => wire_of(StatusCode::NOT_FOUND, "model_not_found", false),
        ErrorKind::NotFound => wire_of(StatusCode::NOT_FOUND, "not_found", false),
        ErrorKind::MethodNotAllowed => wire_of(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", false),
        ErrorKind::RequestTimeout => wire_of(StatusCode::REQUEST_TIMEOUT, "timeout_error", true),
        ErrorKind::Conflict => wire_of(StatusCode::CONFLICT, "conflict", true),
        ErrorKind::PayloadTooLarge => wire_of(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", false),
        ErrorKind::UriTooLong => wire_of(StatusCode::URI_TOO_LONG, "payload_too_large", false),
        ErrorKind::HeadersTooLarge => wire_of(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "payload_too_large", false),
        ErrorKind::UnsupportedMediaType => wire_of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", false),
        ErrorKind::RangeNotSatisfiable => wire_of(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", false),
        ErrorKind::IdempotencyMismatch => wire_of(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", false),
        ErrorKind::RateLimited => wire_of(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", true),
        ErrorKind::Internal => wire_of(StatusCode::INTERNAL_SERVER_ERROR, "server_error", true),
        ErrorKind::Provider => wire_of(StatusCode::BAD_GATEWAY, "provider_error", true),
        ErrorKind::Unavailable => wire_of(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", true),
        ErrorKind::ProviderTimeout => wire_of(StatusCode::GATEWAY_TIMEOUT, "timeout_error", true),
    }
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorObject {
    /// What happened, what was not done, and what to do next.
    pub message: String,
    /// A stable word for programs, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The HTTP status.
    pub code: u16,
    /// The request field at fault, if one is.
    pub param: Option<String>,
    /// The id to quote when asking for help.
    pub request_id: String,
}

/// Writes the envelope of `error` into `headers` and gives its body.
pub fn envelope(error: &Error, request_id: &str, headers: &mut HeaderMap) -> Vec<u8> {
    let wire = wire(error.kind);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after(error) {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if !wire.retry_can_help {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if error.kind == ErrorKind::Authentication {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    body(error, request_id)
}

/// The event that ends a stream with `error`. No `[DONE]` follows: the answer is not complete.
pub fn event(error: &Error, request_id: &str) -> Vec<u8> {
    [b"data: ", body(error, request_id).as_slice(), b"\n\n"].concat()
}

fn body(error: &Error, request_id: &str) -> Vec<u8> {
    let wire = wire(error.kind);
    let object = ErrorObject {
        message: error.message.clone(),
        kind: wire.name,
        code: wire.status.as_u16(),
        param: error.param.clone(),
        request_id: request_id.to_owned(),
    };
    // The members are strings and numbers, so this cannot fail; an empty body would still carry status and request id.
    serde_json::to_vec(&ErrorBody { error: object }).unwrap_or_default()
}

/// The seconds to wait: what the error says, else a default where the contract promises the header.
fn retry_after(error: &Error) -> Option<u32> {
    error.retry_after.or(match error.kind {
        ErrorKind::Conflict | ErrorKind::RateLimited => Some(1),
        ErrorKind::Unavailable => Some(5),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(error: &Error) -> (HeaderMap, serde_json::Value) {
        let mut headers = HeaderMap::new();
        let body = envelope(error, "req_1", &mut headers);
        (headers, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn the_envelope_has_all_members_and_an_integer_code() {
        let (headers, body) = render(&Error::invalid("prompt", "`prompt` is required."));
        let expected = serde_json::json!({"error": {
            "message": "`prompt` is required.", "type": "invalid_request_error", "code": 400,
            "param": "prompt", "request_id": "req_1",
        }});
        assert_eq!(body, expected);
        assert_eq!(headers["x-should-retry"], "false");
        assert!(!headers.contains_key(RETRY_AFTER));
    }

    #[test]
    fn what_a_retry_may_mend_says_when_and_nothing_else_does() {
        let (headers, body) = render(&Error::unavailable("The database cannot be reached.", 500));
        assert_eq!(headers[RETRY_AFTER], "120");
        assert!(!headers.contains_key(SHOULD_RETRY));
        assert_eq!(body["error"]["param"], serde_json::Value::Null);
        let (headers, _) = render(&Error::new(ErrorKind::RateLimited, "slow down"));
        assert_eq!(headers[RETRY_AFTER], "1");
    }

    #[test]
    fn a_401_names_the_scheme() {
        let (headers, _) = render(&Error::new(ErrorKind::Authentication, "no key"));
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer");
    }
}
