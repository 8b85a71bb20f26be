//! How many requests that cost money a key may make: a token bucket per key, by the tier of its account and by what the key
//! and its sub-account are limited to. A key and the one it was rotated from share a bucket.
//!
//! Answers of a limited key say where it stands; a refused one is 429 with `Retry-After`, before anything was done. Reading is
//! not limited. Tests at the end, and of the buckets in `shared/cache`.

use std::num::NonZeroU32;

use aig_cache::{Decision, RateLimit};
use aig_domain::{Error, ErrorKind};
use aig_store::ApiKey;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::ApiError;
use crate::state::ApiState;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// Lets a request of `key` through when its bucket has a token.
pub async fn limited(api: &ApiState, key: &ApiKey, request: Request, next: Next) -> Response {
    let tier = api.app.config.tiers.per_minute(&key.tier).map(NonZeroU32::get);
    let Some(per_minute) = lowest(tier, key.rate_limit_rpm) else { return next.run(request).await };
    let decision = api.app.limiter.take(&key.budget_id, RateLimit { per_minute }).await;
    let mut response = if decision.allowed {
        next.run(request).await
    } else {
        metrics::counter!("aig_rate_limited_total").increment(1);
        ApiError(refused(&decision)).into_response()
    };
    write(&decision, response.headers_mut());
    response
}

/// The lower of two limits, where there is any.
fn lowest(tier: Option<u32>, own: Option<u32>) -> Option<u32> {
    [tier, own].into_iter().flatten().min()
}

fn refused(decision: &Decision) -> Error {
    let message = format!(
        "This key may make {} such requests a minute, and made more. Nothing was done or charged. Try again when \
         Retry-After has passed.",
        decision.limit
    );
    Error::new(ErrorKind::RateLimited, message).retry_after(seconds(decision.retry_after))
}

/// Whole seconds, rounded up, so that whoever waits that long is not refused again.
fn seconds(time: std::time::Duration) -> u32 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

fn write(decision: &Decision, headers: &mut HeaderMap) {
    let reset = seconds(decision.reset);
    for (name, value) in [(LIMIT, decision.limit), (REMAINING, decision.remaining), (RESET, reset)] {
        headers.insert(name, HeaderValue::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_gets_no_more_than_its_tier() {
        assert_eq!(lowest(None, None), None);
        assert_eq!(lowest(None, Some(5)), Some(5));
        assert_eq!([lowest(Some(10), None), lowest(Some(10), Some(60))], [Some(10), Some(10)]);
        assert_eq!(lowest(Some(10), Some(5)), Some(5));
    }

    #[test]
    fn a_refusal_says_when_and_the_headers_say_where_the_key_stands() {
        let decision = Decision {
            allowed: false,
            limit: 60,
            remaining: 0,
            reset: Duration::from_millis(19_001),
            retry_after: Duration::from_millis(300),
        };
        assert_eq!(refused(&decision).retry_after, Some(1));
        let mut headers = HeaderMap::new();
        write(&decision, &mut headers);
        assert_eq!([&headers[LIMIT], &headers[REMAINING], &headers[RESET]], ["60", "0", "20"]);
    }
}
