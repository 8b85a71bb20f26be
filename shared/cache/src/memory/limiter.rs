//! Rate limits of one process.
//!
//! At most 100,000 buckets are kept: beyond that the one that was not used for longest is forgotten, which makes it full.
//! Tests at the end, and `shared/cache/tests/suite/limiter.rs`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aig_domain::Clock;
use async_trait::async_trait;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::rate_limit::{self, Bucket, Decision, RateLimit, RateLimiter, Shape};

const MOST: u64 = 100_000;
/// Longer than the slowest bucket takes to fill, which is a minute: what is forgotten was full.
const IDLE: Duration = Duration::from_mins(2);

/// Counts the requests of this process.
pub struct MemoryLimiter {
    buckets: Cache<String, Arc<Mutex<Bucket>>>,
    clock: Arc<dyn Clock>,
}

impl MemoryLimiter {
    /// A limiter whose buckets are all full.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_room(clock, MOST)
    }

    fn with_room(clock: Arc<dyn Clock>, most: u64) -> Self {
        // Not the default policy: it may refuse a newcomer, whose bucket would then be full each time it comes.
        let policy = EvictionPolicy::lru();
        Self { buckets: Cache::builder().max_capacity(most).eviction_policy(policy).time_to_idle(IDLE).build(), clock }
    }

    /// Takes a token out of a bucket of `shape`; the decision names `limit`.
    pub(crate) fn take_shaped(&self, bucket: &str, limit: RateLimit, shape: Shape) -> Decision {
        let bucket = self.buckets.get_with_by_ref(bucket, || Arc::new(Mutex::new(shape.full(self.now()))));
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        // The time is read under the lock, so that it does not go back from one caller to the next.
        let (allowed, level) = rate_limit::take(shape, &mut bucket, self.now());
        shape.decision(limit, allowed, level)
    }

    /// Microseconds since the Unix epoch.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().0).unwrap_or(0).saturating_mul(1000)
    }
}

#[async_trait]
impl RateLimiter for MemoryLimiter {
    async fn take(&self, bucket: &str, limit: RateLimit) -> Decision {
        self.take_shaped(bucket, limit, Shape::whole(limit))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use aig_domain::Millis;

    use super::*;

    /// Time stands still unless a test moves it.
    struct TestClock(AtomicI64);

    impl Clock for TestClock {
        fn now(&self) -> Millis {
            Millis(self.0.load(Ordering::SeqCst))
        }
    }

    fn still() -> Arc<TestClock> {
        Arc::new(TestClock(AtomicI64::new(1_800_000_000_000)))
    }

    const TEN: RateLimit = RateLimit { per_minute: 10 };

    #[tokio::test]
    async fn the_clock_that_was_passed_in_refills_a_bucket() {
        let clock = still();
        let limiter = MemoryLimiter::new(clock.clone());
        let mut takes = Vec::new();
        for _ in 0..5 {
            takes.push(limiter.take("a", TEN).await.allowed);
        }
        assert_eq!(takes, [true, true, true, true, false]);
        clock.0.fetch_add(5_999, Ordering::SeqCst);
        assert_eq!(limiter.take("a", TEN).await.retry_after, Duration::from_millis(1));
        clock.0.fetch_add(1, Ordering::SeqCst);
        assert!(limiter.take("a", TEN).await.allowed);
    }

    #[tokio::test]
    async fn many_buckets_cost_bounded_room_and_a_newcomer_is_counted() {
        let limiter = MemoryLimiter::with_room(still(), 100);
        for n in 0..400 {
            limiter.take(&format!("busy {}", n % 100), TEN).await;
        }
        limiter.buckets.run_pending_tasks();
        for n in 0..100 {
            let name = format!("new {n}");
            assert_eq!(limiter.take(&name, TEN).await.remaining, 3, "{name}");
            limiter.buckets.run_pending_tasks();
            assert_eq!(limiter.take(&name, TEN).await.remaining, 2, "{name}");
        }
        assert!(limiter.buckets.entry_count() <= 100);
    }

    #[test]
    fn callers_at_once_share_one_bucket() {
        let limiter = MemoryLimiter::new(still());
        let limit = RateLimit { per_minute: 3_000 };
        let allowed: usize = std::thread::scope(|scope| {
            let take = || (0..500).filter(|_| limiter.take_shaped("a", limit, Shape::whole(limit)).allowed).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 1_000);
    }
}
