//! What the limiter does when Redis misbehaves: it decides, soon, from this process alone, and heals by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aig_cache::{RateLimit, RateLimiter, RedisLimiter};
use aig_domain::Secret;
use aig_testkit::eventually;
use tokio_util::task::TaskTracker;

use crate::server::{absent, calls, cannot_save, command, running};
use crate::support::{Redis, SOON, Stalls, healthy};

/// The longest a call may take: a tenth of a second, and a little.
const SLOWEST: Duration = Duration::from_millis(130);
/// The longest that a call takes when it does not wait for Redis.
const QUICK: Duration = Duration::from_millis(50);
const PLENTY: RateLimit = RateLimit { per_minute: 6_000_000 };

/// Waits until limits are local; gives the reason.
async fn local(limiter: &RedisLimiter) -> String {
    eventually("limits are local", SOON, || async { limiter.degraded() }).await.unwrap()
}

/// How many of `n` calls in a row are allowed.
async fn takes(limiter: &RedisLimiter, n: u32, limit: RateLimit) -> u32 {
    let mut allowed = 0;
    for _ in 0..n {
        allowed += u32::from(limiter.take("a", limit).await.allowed);
    }
    allowed
}

const CALLERS: usize = 16;

/// Callers that take all the time while `during` runs; gives how long the slow calls took.
async fn slow_calls<T>(limiter: &RedisLimiter, during: impl Future<Output = T>) -> (Vec<Duration>, T) {
    let over = AtomicBool::new(false);
    let caller = || async {
        let mut slow = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            assert!(limiter.take("b", PLENTY).await.allowed);
            slow.extend(Some(begun.elapsed()).filter(|took| *took > QUICK));
            tokio::task::yield_now().await;
        }
        slow
    };
    let callers = futures_util::future::join_all((0..CALLERS).map(|_| caller()));
    let during = async {
        let given = during.await;
        over.store(true, Ordering::Relaxed);
        given
    };
    let (slow, given) = tokio::join!(callers, during);
    (slow.into_iter().flatten().collect(), given)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_delays_only_the_calls_under_way() {
    let Some((server, redis)) = running().await else { return };
    let (limiter, stalls) = (redis.usual_limiter(), Stalls::measure(&redis.tracker));
    healthy(&limiter).await;
    let (slow, reason) = slow_calls(&limiter, async {
        server.freeze();
        let reason = local(&limiter).await;
        let probed = || async { limiter.degraded().filter(|reason| reason.contains("no connection")) };
        eventually("a probe has failed", SOON, probed).await.unwrap();
        reason
    })
    .await;
    assert!(reason.contains("no answer within 100 ms"), "{reason}");
    assert!(slow.iter().all(|took| *took < stalls.allow(SLOWEST)), "{slow:?}");
    assert!(slow.iter().filter(|took| **took > stalls.allow(QUICK)).count() <= CALLERS, "{slow:?}");
    server.thaw();
    let (slow, ()) = slow_calls(&limiter, healthy(&limiter)).await;
    assert!(slow.iter().all(|took| *took < stalls.allow(SLOWEST)), "{slow:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_noticed_within_a_second_without_traffic() {
    let Some((server, redis)) = running().await else { return };
    let (limiter, stalls) = (redis.usual_limiter(), Stalls::measure(&redis.tracker));
    healthy(&limiter).await;
    server.freeze();
    let begun = Instant::now();
    local(&limiter).await;
    assert!(begun.elapsed() < stalls.allow(Duration::from_secs(1)), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(limiter.take("a", PLENTY).await.allowed);
    assert!(begun.elapsed() < stalls.allow(QUICK), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_and_comes_back() {
    let Some((mut server, redis)) = running().await else { return };
    let (limiter, stalls) = (redis.ready_limiter().await, Stalls::measure(&redis.tracker));
    let (slow, ()) = slow_calls(&limiter, async {
        server.kill();
        let reason = local(&limiter).await;
        assert!(reason.starts_with("rate limits are counted in each process for itself: "), "{reason}");
        server.start(&redis).await;
        healthy(&limiter).await;
    })
    .await;
    assert!(slow.iter().all(|took| *took < stalls.allow(SLOWEST)), "{slow:?}");
    assert_eq!(takes(&limiter, 5, RateLimit { per_minute: 9 }).await, 3, "counted by a Redis that knows nothing");
    assert_eq!(limiter.degraded(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_absent_at_the_start() {
    let Some((mut server, redis)) = absent() else { return };
    let limiter = redis.limiter();
    assert!(limiter.degraded().is_some());
    assert_eq!(takes(&limiter, 5, RateLimit { per_minute: 9 }).await, 3);
    let refused = || async { limiter.degraded().filter(|reason| reason.contains("refused")) };
    eventually("the reason is told", SOON, refused).await.unwrap();
    server.start(&redis).await;
    healthy(&limiter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_emptied_is_no_trouble() {
    let Some((_server, redis)) = running().await else { return };
    let limiter = redis.ready_limiter().await;
    let limit = RateLimit { per_minute: 9 };
    assert_eq!(takes(&limiter, 5, limit).await, 3);
    command(&redis, &["FLUSHALL"]).await;
    command(&redis, &["SCRIPT", "FLUSH"]).await;
    assert_eq!(takes(&limiter, 5, limit).await, 3);
    assert_eq!(limiter.degraded(), None);
}

/// Redis refuses already, with `answer`; `mend` makes it obey again.
async fn refuses(redis: &Redis, limiter: &RedisLimiter, answer: &str, mend: &[&str]) {
    // Taking tells at once, where a ping might not.
    let told = || async {
        limiter.take("a", PLENTY).await;
        limiter.degraded().filter(|reason| reason.contains(answer))
    };
    eventually(answer, SOON, told).await.unwrap();
    // The probe is refused like everybody, so nobody has to try again.
    let before = calls(redis, "evalsha").await;
    let probed = || async {
        assert!(limiter.degraded().is_some_and(|reason| reason.contains(answer)));
        (calls(redis, "evalsha").await >= before + 2).then_some(())
    };
    eventually("Redis is probed", SOON, probed).await.unwrap();
    assert!(limiter.take("a", PLENTY).await.allowed);
    command(redis, mend).await;
    healthy(limiter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses() {
    let Some((_server, redis)) = running().await else { return };
    let limiter = redis.ready_limiter().await;
    command(&redis, &["REPLICAOF", "127.0.0.1", "1"]).await;
    refuses(&redis, &limiter, "READONLY", &["REPLICAOF", "NO", "ONE"]).await;
    command(&redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
    refuses(&redis, &limiter, "OOM", &["CONFIG", "SET", "maxmemory", "0"]).await;
    command(&redis, &["ACL", "SETUSER", "default", "-evalsha", "-eval"]).await;
    refuses(&redis, &limiter, "NOPERM", &["ACL", "SETUSER", "default", "+evalsha", "+eval"]).await;
    cannot_save(&redis).await;
    refuses(&redis, &limiter, "MISCONF", &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_process_counts_its_share() {
    let Some((_server, redis)) = absent() else { return };
    for (live, expected) in [(4, 10), (0, 40), (1_000, 1)] {
        let limiter = redis.limiter();
        redis.live.store(live, Ordering::Relaxed);
        let begun = Instant::now();
        let allowed = takes(&limiter, 60, RateLimit { per_minute: 120 }).await;
        let gained = u32::try_from(begun.elapsed().as_millis() / 500).unwrap();
        assert!((expected..=expected + gained).contains(&allowed), "{live} live: {allowed}");
        assert_eq!(
            limiter.take("a", RateLimit { per_minute: 120 }).await.limit,
            120,
            "people are told the whole limit"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_redis() {
    let Some((server, redis)) = running().await else { return };
    let (limiter, dropped) = (redis.usual_limiter(), redis.usual_limiter());
    healthy(&limiter).await;
    healthy(&dropped).await;
    let stalls = Stalls::measure(&TaskTracker::new());
    server.freeze();
    local(&limiter).await;
    let begun = Instant::now();
    limiter.close().await;
    drop(dropped);
    redis.tracker.close();
    redis.tracker.wait().await;
    assert!(begun.elapsed() < stalls.allow(SLOWEST), "{:?}", begun.elapsed());
    assert!(limiter.take("a", PLENTY).await.allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_fails_is_a_reason_like_any_other() {
    let Some((_server, mut redis)) = running().await else { return };
    let url = redis.config.url.expose().replace("redis://", "rediss://");
    redis.config.url = Secret::new(url);
    let limiter = redis.usual_limiter();
    let told = || async { limiter.degraded().filter(|reason| reason.contains("no connection")) };
    eventually("the reason is told", SOON, told).await.unwrap();
    assert!(limiter.take("a", PLENTY).await.allowed);
}

#[tokio::test]
async fn a_gauge_tells_the_trouble() {
    let Some((mut server, redis)) = running().await else { return };
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let limiter = redis.ready_limiter().await;
    gauge(&recorder, "aig_cache_degraded 0").await;
    server.kill();
    gauge(&recorder, "aig_cache_degraded 1").await;
    server.start(&redis).await;
    gauge(&recorder, "aig_cache_degraded 0").await;
    assert_eq!(limiter.degraded(), None);
}

async fn gauge(recorder: &metrics_exporter_prometheus::PrometheusRecorder, line: &str) {
    let found = || async { recorder.handle().render().lines().any(|found| found == line).then_some(()) };
    eventually(line, SOON, found).await.unwrap();
}
