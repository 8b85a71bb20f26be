//! Rate limits that all processes share, in Redis.
//!
//! A call waits for Redis for a tenth of a second at most, and after one failure none does: each process then counts its own
//! share of the limit, as many as there are live ones, until a probe in the background has had an answer again. The probe
//! takes a token like everybody, so a Redis that answers but refuses scripts or writes is not taken for a healthy one, and it
//! runs while all is well too, so that a frozen Redis is noticed before a request has to. Tests:
//! `shared/cache/tests/suite/{limiter,limiter_troubles}.rs`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ProtocolVersion};
use aig_domain::{Clock, id, retry};
use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::health::Health;
use super::link::{Link, Up};
use super::script::Script;
use super::{CacheError, RedisConfig, reason};
use crate::memory::MemoryLimiter;
use crate::rate_limit::{Decision, RateLimit, RateLimiter, Shape};

/// How long a call waits for Redis.
const ANSWER: Duration = Duration::from_millis(100);
/// The end of that, in which an answer is read that came while this process itself was held up.
const GRACE: Duration = Duration::from_millis(10);
/// How long a new connection may take, with its handshakes.
const CONNECT: Duration = Duration::from_millis(500);
/// How often Redis is probed, give or take a fifth.
const PROBE: Duration = Duration::from_millis(500);
/// How many commands may wait to be sent.
const PIPELINE: usize = 1024;

/// Counts requests in Redis, else in this process.
pub struct RedisLimiter {
    remote: Arc<Remote>,
    local: MemoryLimiter,
    live: Arc<AtomicU32>,
    closed: CancellationToken,
    stop: CancellationToken,
    _stop: DropGuard,
}

/// Everything that speaks to Redis.
struct Remote {
    client: Client,
    script: Script,
    prefix: String,
    probe: String,
    patience: Duration,
    link: Link,
}

impl RedisLimiter {
    /// A limiter that connects in the background, on `tracker`. `live` is how many processes count now; others keep it
    /// right. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(
        config: &RedisConfig,
        clock: Arc<dyn Clock>,
        live: Arc<AtomicU32>,
        tracker: &TaskTracker,
    ) -> Result<Self, CacheError> {
        Self::with_patience(config, clock, live, tracker, ANSWER)
    }

    /// As [`RedisLimiter::new`], with calls that wait for Redis for up to `patience` instead of a tenth of a second.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn with_patience(
        config: &RedisConfig,
        clock: Arc<dyn Clock>,
        live: Arc<AtomicU32>,
        tracker: &TaskTracker,
        patience: Duration,
    ) -> Result<Self, CacheError> {
        let harm = "rate limits are counted in each process for itself";
        let remote = Arc::new(Remote {
            client: config.client(ProtocolVersion::RESP2)?,
            script: Script::new(),
            prefix: format!("{}rate:", config.prefix),
            probe: format!("{}probe:{}", config.prefix, id::new("", clock.now())),
            patience,
            link: Link::new(Health::new("aig_cache_degraded", harm)),
        });
        let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
        let (tended, stopping, done) = (Arc::clone(&remote), stop.clone(), closed.clone().drop_guard());
        tracker.spawn(async move {
            let _done = done;
            stopping.run_until_cancelled(tended.tend()).await;
            tended.link.close();
        });
        Ok(Self { remote, local: MemoryLimiter::new(clock), live, closed, _stop: stop.clone().drop_guard(), stop })
    }
}

#[async_trait]
impl RateLimiter for RedisLimiter {
    async fn take(&self, bucket: &str, limit: RateLimit) -> Decision {
        if let Some(mut up) = self.remote.link.up() {
            let (key, shape) = (format!("{}{bucket}", self.remote.prefix), Shape::whole(limit));
            match self.remote.take(&mut up.connection, &key, shape).await {
                Ok((allowed, level)) => return shape.decision(limit, allowed, level),
                Err(reason) => self.remote.link.trip(&up, reason),
            }
        }
        let share = Shape::share(limit, self.live.load(Ordering::Relaxed));
        self.local.take_shaped(bucket, limit, share)
    }

    fn degraded(&self) -> Option<String> {
        self.remote.link.health.trouble()
    }

    async fn close(&self) {
        self.stop.cancel();
        self.closed.cancelled().await;
    }
}

impl Remote {
    /// Takes a token, or says why that was not possible in time.
    async fn take(&self, on: &mut MultiplexedConnection, key: &str, shape: Shape) -> Result<(bool, u64), String> {
        let mut call = pin!(self.script.take(on, key, shape));
        let mut answer = timeout(self.patience.saturating_sub(GRACE), &mut call).await;
        if answer.is_err() {
            answer = timeout(GRACE, call).await;
        }
        match answer {
            Ok(answer) => answer.map_err(|error| reason(&error)),
            Err(_) => Err(format!("Redis gave no answer within {} ms", self.patience.as_millis())),
        }
    }

    /// Keeps the connection, for ever.
    async fn tend(&self) {
        loop {
            match self.link.up() {
                Some(mut up) => self.check(&mut up).await,
                None => self.connect().await,
            }
            self.link.health.measure();
            tokio::time::sleep(retry::jitter(PROBE, 20)).await;
        }
    }

    async fn check(&self, up: &mut Up) {
        if let Err(reason) = self.probe(&mut up.connection).await {
            self.link.trip(up, reason);
        }
    }

    /// One try to get a connection that works.
    async fn connect(&self) {
        // The limit on answers is set by those who wait for them; this one is for the connection as a whole.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT.max(self.patience)))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        match self.client.get_multiplexed_async_connection_with_config(&config).await {
            Ok(mut connection) => match self.probe(&mut connection).await {
                Ok(()) => self.link.heal(connection),
                Err(reason) => self.link.open(reason),
            },
            Err(error) => self.link.open(reason(&error)),
        }
    }

    /// Does what a call does, on a bucket that is never empty.
    async fn probe(&self, on: &mut MultiplexedConnection) -> Result<(), String> {
        self.take(on, &self.probe, Shape::whole(RateLimit { per_minute: 60_000 })).await.map(drop)
    }
}
