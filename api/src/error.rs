//! The only table from a kind of error to what the client sees: status, type, and whether a retry can help.
//!
//! A handler fails with an [`ApiError`]. It becomes a response without a body that carries the [`Error`]; the outermost
//! layer ([`crate::middleware::door`]) turns that into the envelope with [`envelope`], since only it knows the request id.
//! So every error has the same shape, whoever made it. Tests: `tests` at the end, and those of the door.

use aig_domain::caps::ScopeKind;
use aig_domain::error::BudgetDetail;
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

/// The table.
pub fn wire(kind: ErrorKind) -> Wire {
    let (name, retry_can_help) = match kind {
        ErrorKind::InvalidRequest => ("invalid_request_error", false),
        ErrorKind::ModelNotPriced => ("model_not_priced", false),
        ErrorKind::Authentication => ("authentication_error", false),
        ErrorKind::BudgetExceeded => ("budget_exceeded", false),
        ErrorKind::ScopeExceeded => ("scope_exceeded", false),
        ErrorKind::ModelNotFound => ("model_not_found", false),
        ErrorKind::NotFound => ("not_found", false),
        ErrorKind::MethodNotAllowed => ("method_not_allowed", false),
        ErrorKind::RequestTimeout | ErrorKind::ProviderTimeout => ("timeout_error", true),
        ErrorKind::Conflict => ("conflict", true),
        ErrorKind::PayloadTooLarge | ErrorKind::UriTooLong | ErrorKind::HeadersTooLarge => ("payload_too_large", false),
        ErrorKind::UnsupportedMediaType => ("unsupported_media_type", false),
        ErrorKind::RangeNotSatisfiable => ("range_not_satisfiable", false),
        ErrorKind::IdempotencyMismatch => ("idempotency_mismatch", false),
        ErrorKind::RateLimited => ("rate_limit_error", true),
        ErrorKind::Internal => ("server_error", true),
        ErrorKind::Provider => ("provider_error", true),
        ErrorKind::Unavailable => ("service_unavailable", true),
    };
    // Every status of the table of kinds is one.
    let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Wire { status, name, retry_can_help }
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
    /// Of a 402: the cap that stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetObject>,
}

/// A cap that a request did not fit under. Amounts are in cents; a sub-account is told none of the account above it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetObject {
    /// `account`, `sub_account`, `key` or `tag`.
    pub scope: &'static str,
    /// The id of that account, sub-account or key, or the tag.
    pub scope_id: Option<String>,
    /// When the cap has room again, in Unix seconds.
    pub resets_at: i64,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Option<BudgetStanding>,
}

/// How a cap stands. Amounts are in cents.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetStanding {
    /// The most that may be spent in a month.
    #[schema(value_type = f64)]
    pub cap_cents: serde_json::Number,
    /// What is spent.
    #[schema(value_type = f64)]
    pub spent_cents: serde_json::Number,
    /// What is promised to requests under way, or may have been billed upstream.
    #[schema(value_type = f64)]
    pub held_cents: serde_json::Number,
    /// What this request could have cost.
    #[schema(value_type = f64)]
    pub requested_cents: serde_json::Number,
}

impl From<&BudgetDetail> for BudgetObject {
    fn from(BudgetDetail { exhausted, is_hidden, resets_at }: &BudgetDetail) -> Self {
        let balance = &exhausted.balance;
        let standing = (!is_hidden).then(|| BudgetStanding {
            cap_cents: balance.cap.unwrap_or_default().cents_json(),
            spent_cents: balance.spent.cents_json(),
            held_cents: balance.held.plus(balance.uncertain).cents_json(),
            requested_cents: exhausted.wanted.cents_json(),
        });
        // A tag is what the caller sent.
        let is_known = !is_hidden || exhausted.scope.kind == ScopeKind::Tag;
        let scope_id = is_known.then(|| exhausted.scope.name().to_owned());
        Self { scope: exhausted.scope.kind.as_str(), scope_id, resets_at: resets_at.unix_seconds(), standing }
    }
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
        budget: error.budget.as_deref().map(BudgetObject::from),
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
