//! Rate limits: the seam, and the arithmetic of a token bucket.
//!
//! A bucket holds a third of a minute's requests, so that twice the rate is fine for ten seconds, and refills evenly. The
//! arithmetic is exact: whatever the order of calls, no stretch of time admits more than the capacity and what came in
//! meanwhile. It is pure; the script for Redis does the same in Lua and is tested against it (`redis/script.rs`). Tests at
//! the end.

use std::time::Duration;

use async_trait::async_trait;

/// One token. The unit is a sixtieth of a micro-token: a bucket of N requests per minute gains exactly N units per
/// microsecond, and nothing is ever rounded.
pub(crate) const TOKEN: u64 = 60_000_000;

/// A clock that went back by less than this (microseconds) is waited for; by more, it is believed.
pub(crate) const STEP_BACK: u64 = 1_000_000;

/// How many requests a bucket lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per minute, at least 1 (0 is taken as 1). A third of it may come at once.
    pub per_minute: u32,
}

/// What a limiter says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub allowed: bool,
    /// The whole limit, in requests per minute.
    pub limit: u32,
    /// Whole tokens that are left.
    pub remaining: u32,
    /// How long until the bucket is full again.
    pub reset: Duration,
    /// How long until the next token; zero when the request was allowed.
    pub retry_after: Duration,
}

/// Counts requests. It always decides, and soon: a limiter that cannot count as it should counts as well as it can.
#[async_trait]
pub trait RateLimiter: Send + Sync {
    /// Takes one token out of `bucket`, which begins full and is forgotten when it would be full again.
    async fn take(&self, bucket: &str, limit: RateLimit) -> Decision;

    /// Why limits are less exact at the moment, as a sentence; `None` when they are exact.
    fn degraded(&self) -> Option<String> {
        None
    }

    /// Ends what runs in the background. [`RateLimiter::take`] still decides, from this process alone.
    async fn close(&self) {}
}

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Units per microsecond, which is requests per minute.
    pub(crate) rate: u32,
    /// Units.
    pub(crate) capacity: u64,
}

/// A bucket at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Units.
    pub(crate) level: u64,
    /// Microseconds since the Unix epoch.
    pub(crate) at: u64,
}

impl Shape {
    /// The bucket of a whole limit.
    pub(crate) fn whole(limit: RateLimit) -> Self {
        Self::share(limit, 1)
    }

    /// What each of `processes` may let through so that together they stay within the limit; at least one request.
    pub(crate) fn share(limit: RateLimit, processes: u32) -> Self {
        let (whole, processes) = (limit.per_minute.max(1), processes.max(1));
        let tokens = (whole.div_ceil(3) / processes).max(1);
        Self { rate: (whole / processes).max(1), capacity: u64::from(tokens) * TOKEN }
    }

    /// A full bucket.
    pub(crate) fn full(self, now: u64) -> Bucket {
        Bucket { level: self.capacity, at: now }
    }

    /// What is told about a bucket that holds `level` after a request was allowed or not.
    pub(crate) fn decision(self, limit: RateLimit, allowed: bool, level: u64) -> Decision {
        let wait = |units: u64| Duration::from_micros(units.div_ceil(u64::from(self.rate)));
        Decision {
            allowed,
            limit: limit.per_minute.max(1),
            remaining: u32::try_from(level / TOKEN).unwrap_or(u32::MAX),
            reset: wait(self.capacity.saturating_sub(level)),
            retry_after: if allowed { Duration::ZERO } else { wait(TOKEN.saturating_sub(level)) },
        }
    }
}

/// Takes a token out of `bucket` at `now` if there is one; gives whether it was there, and the level afterwards. A refusal
/// leaves the bucket as it was, so that Redis need not write then.
pub(crate) fn take(shape: Shape, bucket: &mut Bucket, now: u64) -> (bool, u64) {
    let gained = now.saturating_sub(bucket.at).saturating_mul(u64::from(shape.rate));
    let level = bucket.level.saturating_add(gained).min(shape.capacity);
    let stepped = bucket.at.saturating_sub(now) > STEP_BACK;
    let left = level.checked_sub(TOKEN);
    if left.is_some() || stepped {
        let at = if stepped { now } else { bucket.at.max(now) };
        *bucket = Bucket { level: left.unwrap_or(level), at };
    }
    (left.is_some(), left.unwrap_or(level))
}

#[cfg(test)]
mod tests;
