//! The bus between processes, on Redis's publish and subscribe.
//!
//! A signal reaches the listeners of its own process at once and the others' through one channel. [`Bus::send`] never
//! waits: what is to be published waits in a bounded queue. Whoever may have missed signals hears [`Signal::Missed`]: this
//! process whenever it begins to hear the channel, and all others after this one could not publish something. Messages that
//! make no sense are ignored. Tests: `shared/cache/tests/suite/{bus,bus_troubles}.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Msg, ProtocolVersion, PushInfo, PushKind, RedisError};
use aig_domain::{id, retry};
use async_trait::async_trait;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::health::Health;
use super::wire::Message;
use super::{CacheError, RedisConfig, is_answer, reason};
use crate::bus::{Bus, CAPACITY, Signal};

/// How long Redis may take to answer or to connect. Nobody waits for it, so a machine that is merely busy gets its time:
/// a new connection makes everybody forget what they have cached.
const ANSWER: Duration = Duration::from_secs(2);
/// How often a quiet connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(1);
/// How long the end may take.
const FLUSH: Duration = Duration::from_secs(1);
/// How many signals are published at once.
const BATCH: usize = 64;
/// The first wait before a new connection, and the longest; give or take a half.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A connection that held for less did not end the trouble: the wait goes on growing.
const STEADY: Duration = Duration::from_secs(10);

/// The bus of all processes with the same Redis and prefix.
pub struct RedisBus {
    local: broadcast::Sender<Signal>,
    outgoing: mpsc::Sender<Signal>,
    shared: Arc<Shared>,
    closed: CancellationToken,
    stop: CancellationToken,
    _stop: DropGuard,
}

/// What the handle and the background share.
struct Shared {
    health: Health,
    /// Something was not published, and nobody has been told yet.
    lost: AtomicBool,
}

/// The background: one connection after the other.
struct Supervisor {
    client: Client,
    channel: String,
    instance: String,
    local: broadcast::Sender<Signal>,
    outgoing: mpsc::Receiver<Signal>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl RedisBus {
    /// A bus that connects in the background, on `tracker`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(config: &RedisConfig, tracker: &TaskTracker) -> Result<Self, CacheError> {
        // On one connection of the newer protocol messages and answers can share the way.
        let client = config.client(ProtocolVersion::RESP3)?;
        let (local, (outgoing, queue)) = (broadcast::Sender::new(CAPACITY), mpsc::channel(CAPACITY));
        let health = Health::new("aig_bus_degraded", "signals do not travel between processes");
        let shared = Arc::new(Shared { health, lost: AtomicBool::new(false) });
        let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
        let supervisor = Supervisor {
            client,
            channel: format!("{}bus", config.prefix),
            instance: u128::from_le_bytes(id::random_bytes()).to_string(),
            local: local.clone(),
            outgoing: queue,
            shared: Arc::clone(&shared),
            stop: stop.clone(),
        };
        let done = closed.clone().drop_guard();
        tracker.spawn(async move {
            let _done = done;
            supervisor.run().await;
        });
        Ok(Self { local, outgoing, shared, closed, _stop: stop.clone().drop_guard(), stop })
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn send(&self, signal: Signal) {
        // An error means that nobody listens.
        let _ = self.local.send(signal.clone());
        if self.outgoing.try_send(signal).is_err() {
            self.shared.lose(1);
        }
    }

    fn listen(&self) -> broadcast::Receiver<Signal> {
        self.local.subscribe()
    }

    fn degraded(&self) -> Option<String> {
        self.shared.health.trouble()
    }

    async fn close(&self) {
        self.stop.cancel();
        self.closed.cancelled().await;
    }
}

impl Shared {
    fn lose(&self, signals: usize) {
        self.lost.store(true, Ordering::Release);
        metrics::counter!("aig_bus_signals_dropped_total").increment(signals as u64);
    }
}

impl Supervisor {
    async fn run(mut self) {
        let (stop, mut attempt) = (self.stop.clone(), 0);
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let over = async {
                stop.cancelled().await;
                tokio::time::sleep(FLUSH).await;
            };
            let ended = tokio::select! {
                ended = self.session() => ended,
                () = over => Ok(()),
            };
            if let Err(error) = ended {
                self.shared.health.bad(reason(&error));
            }
            attempt = if begun.elapsed() < STEADY { attempt + 1 } else { 1 };
            let wait = retry::jitter(retry::exponential(BACK_OFF.0, attempt - 1, BACK_OFF.1), 50);
            stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
        self.shared.health.closed();
    }

    /// Connects, and publishes and hears until the connection breaks or the bus is closed.
    async fn session(&mut self) -> Result<(), RedisError> {
        let (stop, gone) = (self.stop.clone(), Arc::new(Notify::new()));
        let Some(connected) = stop.run_until_cancelled(self.connect(&gone)).await else { return Ok(()) };
        let mut connection = connected?;
        let _ = self.local.send(Signal::Missed);
        self.shared.health.good();

        let mut batch = Vec::with_capacity(BATCH);
        self.publish(&mut connection, &mut batch).await?;
        loop {
            tokio::select! {
                () = gone.notified() => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
                // What waits already is still published.
                () = stop.cancelled(), if !self.outgoing.is_closed() => self.outgoing.close(),
                taken = self.outgoing.recv_many(&mut batch, BATCH) => match taken {
                    0 => return Ok(()),
                    _ => self.publish(&mut connection, &mut batch).await?,
                },
                () = tokio::time::sleep(PING) => {
                    self.shared.health.measure();
                    match ::redis::cmd("PING").exec_async(&mut connection).await {
                        // A Redis that cannot save refuses pings too; signals still travel.
                        Err(error) if !is_answer(&error) => return Err(error),
                        _ => self.publish(&mut connection, &mut batch).await?,
                    }
                }
            }
        }
    }

    /// A connection that hears the channel.
    async fn connect(&self, gone: &Arc<Notify>) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_push_sender(self.ear(gone));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(&self.channel).await?;
        Ok(connection)
    }

    /// Publishes `batch`, and before it that something was lost if so.
    async fn publish(
        &mut self,
        connection: &mut MultiplexedConnection,
        batch: &mut Vec<Signal>,
    ) -> Result<(), RedisError> {
        let signals = batch.len();
        if self.shared.lost.swap(false, Ordering::AcqRel) {
            batch.insert(0, Signal::Missed);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut pipe = ::redis::pipe();
        for signal in batch.drain(..) {
            match (Message { from: self.instance.clone(), signal }).write() {
                Ok(bytes) => {
                    pipe.cmd("PUBLISH").arg(&self.channel).arg(bytes).ignore();
                }
                Err(error) => tracing::error!(%error, "a signal cannot be written"),
            }
        }
        match pipe.exec_async(connection).await {
            Ok(()) => self.shared.health.good(),
            Err(error) => {
                self.shared.lose(signals);
                if !is_answer(&error) {
                    return Err(error);
                }
                // It will not publish, but what others publish is still heard.
                self.shared.health.bad(reason(&error));
            }
        }
        Ok(())
    }

    /// What the connection calls with everything that Redis says unasked. It must not block.
    fn ear(&self, gone: &Arc<Notify>) -> impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static {
        let (instance, local, gone) = (self.instance.clone(), self.local.clone(), Arc::clone(gone));
        move |push| {
            if push.kind == PushKind::Disconnection {
                gone.notify_one();
            }
            let Some(heard) = Msg::from_push_info(push) else { return Ok(()) };
            match Message::read(heard.get_payload_bytes()) {
                // Its own listeners have heard it already.
                Ok(message) if message.from == instance => {}
                Ok(message) => {
                    let _ = local.send(message.signal);
                }
                Err(error) => tracing::debug!(%error, "a message on the bus makes no sense and is ignored"),
            }
            Ok(())
        }
    }
}
