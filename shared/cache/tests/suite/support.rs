//! Limiters and buses of either form, with a prefix of their own on a Redis that others use too.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aig_cache::{Bus, RateLimiter, RedisBus, RedisConfig, RedisLimiter};
use aig_domain::clock::SystemClock;
use aig_domain::{Clock as _, Secret, id};
use aig_testkit::eventually;
use futures_util::FutureExt as _;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// How long something may take that takes a moment, on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(10);

/// Makes one test per form out of an `async fn(&Form)`.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod memory { $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&super::memory()).await; })+ }
        mod redis { $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
            crate::support::on_redis(|redis| Box::pin(async move { super::$name(&super::on(redis).await).await })).await;
        })+ }
    };
}
pub(crate) use both;

/// A Redis and what a test needs on it. Dropping it ends what runs in the background.
pub struct Redis {
    pub config: RedisConfig,
    pub tracker: TaskTracker,
    pub live: Arc<AtomicU32>,
}

impl Redis {
    pub fn at(url: &str) -> Self {
        let prefix = format!("{}:", id::new("aig_test_", SystemClock.now()));
        let config = RedisConfig { url: Secret::new(url), prefix };
        Self { config, tracker: TaskTracker::new(), live: Arc::new(AtomicU32::new(1)) }
    }

    pub async fn connection(&self) -> MultiplexedConnection {
        connection(self.config.url.expose()).await.unwrap()
    }

    /// A limiter that may not be connected yet. It has more patience than usual, so that a busy machine is no trouble.
    pub fn limiter(&self) -> RedisLimiter {
        let (clock, live) = (Arc::new(SystemClock), Arc::clone(&self.live));
        RedisLimiter::with_patience(&self.config, clock, live, &self.tracker, SOON).unwrap()
    }

    /// A limiter as it is shipped, which may not be connected yet.
    pub fn usual_limiter(&self) -> RedisLimiter {
        RedisLimiter::new(&self.config, Arc::new(SystemClock), Arc::clone(&self.live), &self.tracker).unwrap()
    }

    /// A bus that may not be connected yet.
    pub fn bus(&self) -> RedisBus {
        RedisBus::new(&self.config, &self.tracker).unwrap()
    }

    pub async fn ready_limiter(&self) -> RedisLimiter {
        let limiter = self.limiter();
        healthy(&limiter).await;
        limiter
    }

    pub async fn ready_bus(&self) -> RedisBus {
        let bus = self.bus();
        connected(&bus).await;
        bus
    }

    async fn remove_keys(&self) {
        let mut connection = self.connection().await;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{}*", self.config.prefix)).query_async(&mut connection).await.unwrap();
        for key in keys {
            redis::cmd("DEL").arg(key).exec_async(&mut connection).await.unwrap();
        }
    }
}

pub async fn healthy(limiter: &dyn RateLimiter) {
    eventually("the limiter is healthy", SOON, || async { limiter.degraded().is_none().then_some(()) }).await.unwrap();
}

pub async fn connected(bus: &dyn Bus) {
    eventually("the bus is connected", SOON, || async { bus.degraded().is_none().then_some(()) }).await.unwrap();
}

async fn connection(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(SOON));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// How late this process is woken up at worst: what a stopwatch must allow for on a machine that is busy with other things.
pub struct Stalls {
    worst: Arc<AtomicU64>,
    meter: JoinHandle<()>,
}

impl Stalls {
    pub fn measure(tracker: &TaskTracker) -> Self {
        let worst = Arc::new(AtomicU64::new(0));
        let found = Arc::clone(&worst);
        let meter = tracker.spawn(async move {
            loop {
                let begun = Instant::now();
                tokio::time::sleep(Duration::from_millis(2)).await;
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
                found.fetch_max(took.saturating_sub(4), Ordering::Relaxed);
            }
        });
        Self { worst, meter }
    }

    /// `limit` on a machine that has nothing else to do.
    pub fn allow(&self, limit: Duration) -> Duration {
        limit + 3 * Duration::from_millis(self.worst.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.meter.abort();
    }
}

type Body = for<'a> fn(&'a Redis) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs `body` on the Redis that is there, and removes its keys.
pub async fn on_redis(body: Body) {
    let url = std::env::var("AIG_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    if let Err(error) = connection(&url).await {
        return skip(&format!("no Redis ({error}); run deploy/services up"));
    }
    let redis = Redis::at(&url);
    let outcome = AssertUnwindSafe(body(&redis)).catch_unwind().await;
    redis.tracker.close();
    let ended = tokio::time::timeout(SOON, redis.tracker.wait()).await;
    redis.remove_keys().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    ended.unwrap();
}

/// Says that a test did not run, unless that is a failure.
pub fn skip(why: &str) {
    assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "{why}");
    // Not `eprintln!`: the test harness would swallow it.
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}
