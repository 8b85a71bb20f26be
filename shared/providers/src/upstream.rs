//! What the adapters share: requests with the operator's key, and failures in words that are fit for a customer.

use std::time::Duration;

use aig_domain::Secret;
use aig_fetch::{BodyError, BodyStream, SendError, read_bounded};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::Value;

use crate::{ProviderError, ProviderErrorKind};

/// How much of an error's body is read, and for how long.
const MAX_ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);
/// How much of a provider's own words a customer sees, in characters.
const MAX_WORDS: usize = 500;
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: u64 = 3600;

/// A request to an upstream; `None` when the key or the URL cannot be sent.
pub(crate) fn request(method: Method, url: &str, key: Option<&Secret>, body: Bytes) -> Option<Request<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header(USER_AGENT, concat!("aigateway/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(key) = key {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(body).ok()
}

/// A request that could not even be built.
pub(crate) fn not_built() -> ProviderError {
    ProviderError::new(ProviderErrorKind::Auth, "The operator's key or URL for this provider cannot be sent.")
}

/// No answer at all.
pub(crate) fn not_answered(error: &SendError) -> ProviderError {
    tracing::warn!(%error, "a provider did not answer");
    match error {
        SendError::NotSent(_) => ProviderError::new(ProviderErrorKind::Unavailable, "The provider cannot be reached."),
        SendError::MaybeSent(_) => ProviderError::new(
            ProviderErrorKind::Unavailable,
            "The connection to the provider broke before it answered.",
        ),
        SendError::Timeout => ProviderError::new(ProviderErrorKind::Timeout, "The provider did not answer in time."),
    }
}

/// A body that ended early.
pub(crate) fn broken_body(error: &BodyError) -> ProviderError {
    tracing::warn!(%error, "a provider's answer ended early");
    match error {
        BodyError::Broken(_) => ProviderError::new(
            ProviderErrorKind::Unavailable,
            "The connection to the provider broke during its answer.",
        ),
        BodyError::Idle(_) | BodyError::Total(_) => {
            ProviderError::new(ProviderErrorKind::Timeout, "The provider stopped in the middle of its answer.")
        }
        BodyError::TooLarge(_) => bad_response("The provider's answer is too large."),
    }
}

/// An answer that makes no sense.
pub(crate) fn bad_response(message: &str) -> ProviderError {
    ProviderError::new(ProviderErrorKind::BadResponse, message)
}

/// An answer that is not a 2xx.
pub(crate) async fn refused(response: Response<BodyStream>, key: Option<&Secret>) -> ProviderError {
    let (head, body) = response.into_parts();
    let body = read_bounded(body, MAX_ERROR_BODY, ERROR_BODY_TIME).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let kind = kind_of(head.status, &body);
    let words = words(&body).map(|words| scrub(words, key));
    let message = match (kind, words) {
        (ProviderErrorKind::Auth, _) => "The provider does not accept the operator's key.".to_owned(),
        (ProviderErrorKind::BadResponse, _) => {
            format!("The provider answered with status {}, which makes no sense here.", head.status.as_u16())
        }
        (_, Some(words)) => format!("The provider refused the request: {words}"),
        (_, None) => format!("The provider refused the request with status {}.", head.status.as_u16()),
    };
    tracing::warn!(status = head.status.as_u16(), "a provider refused a request");
    ProviderError { kind, message, retry_after: retry_after(&head.headers) }
}

fn kind_of(status: StatusCode, body: &Value) -> ProviderErrorKind {
    let word = |name: &str| body["error"][name].as_str().unwrap_or("").to_ascii_lowercase();
    let refused = ["content_policy", "content_filter", "content_refused", "moderation", "safety"];
    let is_content = [word("code"), word("type")].iter().any(|word| refused.iter().any(|part| word.contains(part)));
    match status.as_u16() {
        400..=499 if is_content => ProviderErrorKind::ContentRefused,
        401..=403 => ProviderErrorKind::Auth,
        404 => ProviderErrorKind::NotFound,
        408 | 504 => ProviderErrorKind::Timeout,
        425 | 429 => ProviderErrorKind::RateLimited,
        400..=499 => ProviderErrorKind::InvalidInput,
        500..=599 => ProviderErrorKind::Unavailable,
        _ => ProviderErrorKind::BadResponse,
    }
}

/// `Retry-After` in seconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER)))
}

/// The provider's own words, wherever its dialect puts them.
fn words(body: &Value) -> Option<&str> {
    let candidates = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    candidates.into_iter().find_map(Value::as_str).filter(|words| !words.trim().is_empty())
}

/// Takes out what no customer may see: our key, anything that looks like one, addresses.
pub(crate) fn scrub(words: &str, key: Option<&Secret>) -> String {
    let mut text: String = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS * 4).collect();
    if let Some(key) = key.map(Secret::expose).filter(|key| !key.is_empty()) {
        text = text.replace(key, "[key]");
    }
    let clean: Vec<&str> = text
        .split(' ')
        .map(|word| {
            let plain = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let looks_secret =
                ["sk-", "sk_", "key-", "eyJ"].iter().any(|start| plain.starts_with(start)) && plain.len() > 8;
            if looks_secret {
                "[key]"
            } else if word.contains("://") {
                "[address]"
            } else {
                word
            }
        })
        .collect();
    clean.join(" ").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_logged_nor_shown() {
        let key = Secret::new("topsecret123");
        for words in [
            "Incorrect API key provided: topsecret123.",
            "bad key 'sk-abcdef123456'",
            "see (sk-proj-****6789)",
            "token eyJhbGciOiJIUzI1NiJ9.x.y refused",
            "call http://10.0.0.7:9000/internal",
        ] {
            let shown = scrub(words, Some(&key));
            for secret in ["topsecret123", "abcdef123456", "6789", "eyJhbG", "10.0.0.7"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        assert_eq!(scrub("the prompt is too long", Some(&key)), "the prompt is too long");
        assert!(scrub(&"x".repeat(10_000), None).len() <= MAX_WORDS);
    }
}
