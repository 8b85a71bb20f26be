//! What every limiter promises.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aig_cache::{MemoryLimiter, RateLimit, RateLimiter};
use aig_domain::clock::SystemClock;
use aig_testkit::eventually;

use crate::support::{Redis, SOON, both, on_redis};

type Form = Arc<dyn RateLimiter>;

fn memory() -> Form {
    Arc::new(MemoryLimiter::new(Arc::new(SystemClock)))
}

async fn on(redis: &Redis) -> Form {
    Arc::new(redis.ready_limiter().await)
}

both!(
    a_bucket_begins_full_and_runs_dry,
    buckets_do_not_know_each_other,
    tokens_come_back,
    callers_at_once_get_no_more_than_there_is,
    a_changed_limit_counts_at_once,
    after_the_end_it_still_decides,
);

/// Three at once, then one in seven seconds.
const NINE: RateLimit = RateLimit { per_minute: 9 };

/// How many requests of `limit` come in during `time`.
fn gained(limit: RateLimit, time: Duration) -> u32 {
    u32::try_from(time.as_millis() * u128::from(limit.per_minute) / 60_000 + 1).unwrap()
}

async fn a_bucket_begins_full_and_runs_dry(limiter: &Form) {
    for left in [2, 1, 0] {
        let decision = limiter.take("a", NINE).await;
        assert!(decision.allowed);
        assert_eq!((decision.limit, decision.remaining, decision.retry_after), (9, left, Duration::ZERO));
        let full = f64::from(3 - left) * 60.0 / 9.0;
        assert!((decision.reset.as_secs_f64() - full).abs() < 2.0, "{decision:?}");
    }
    let refused = limiter.take("a", NINE).await;
    assert!(!refused.allowed && refused.remaining == 0, "{refused:?}");
    assert!((4.0..6.7).contains(&refused.retry_after.as_secs_f64()), "{refused:?}");
    assert!((17.0..20.1).contains(&refused.reset.as_secs_f64()), "{refused:?}");
    assert_eq!(limiter.degraded(), None);
}

async fn buckets_do_not_know_each_other(limiter: &Form) {
    while limiter.take("a", NINE).await.allowed {}
    assert!(limiter.take("b", NINE).await.allowed);
    assert!(limiter.take("a b\r\nc", NINE).await.allowed, "any name will do");
}

async fn tokens_come_back(limiter: &Form) {
    let limit = RateLimit { per_minute: 1_200 };
    let begun = Instant::now();
    let mut allowed = 0;
    while limiter.take("a", limit).await.allowed {
        allowed += 1;
    }
    assert!((400..=400 + gained(limit, begun.elapsed())).contains(&allowed), "{allowed}");
    eventually("a token is back", SOON, || async { limiter.take("a", limit).await.allowed.then_some(()) })
        .await
        .unwrap();
}

async fn callers_at_once_get_no_more_than_there_is(limiter: &Form) {
    let limit = RateLimit { per_minute: 300 };
    let begun = Instant::now();
    let callers = (0..50).map(|_| async {
        let mut allowed = 0;
        for _ in 0..10 {
            allowed += u32::from(limiter.take("a", limit).await.allowed);
        }
        allowed
    });
    let allowed: u32 = futures_util::future::join_all(callers).await.into_iter().sum();
    assert!((100..=100 + gained(limit, begun.elapsed())).contains(&allowed), "{allowed}");
}

async fn a_changed_limit_counts_at_once(limiter: &Form) {
    assert_eq!(limiter.take("a", RateLimit { per_minute: 600 }).await.remaining, 199);
    assert_eq!(limiter.take("a", NINE).await.remaining, 2);
    let higher = limiter.take("a", RateLimit { per_minute: 600 }).await;
    assert_eq!(higher.limit, 600);
    assert!(higher.remaining < 100, "what was used stays used: {higher:?}");
}

async fn after_the_end_it_still_decides(limiter: &Form) {
    limiter.close().await;
    limiter.close().await;
    assert!(limiter.take("a", NINE).await.allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_bucket() {
    on_redis(|redis| {
        Box::pin(async move {
            let (here, there) = (redis.ready_limiter().await, redis.ready_limiter().await);
            let limit = RateLimit { per_minute: 300 };
            let begun = Instant::now();
            let mut allowed = 0;
            for _ in 0..100 {
                let (a, b) = tokio::join!(here.take("a", limit), there.take("a", limit));
                allowed += u32::from(a.allowed) + u32::from(b.allowed);
            }
            assert!((100..=100 + gained(limit, begun.elapsed())).contains(&allowed), "{allowed}");
            assert_eq!((here.degraded(), there.degraded()), (None, None));
        })
    })
    .await;
}
