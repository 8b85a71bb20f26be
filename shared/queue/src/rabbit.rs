//! RabbitMQ as the broker, for roles in processes of their own.
//!
//! - One connection for publishing and one for consuming: a broker short of memory stops reading from who publishes. Each has
//!   a supervisor (`link`), which connects again after any failure, declares the queues again, and never gives up.
//! - Only what the broker confirmed counts as published (`publish`); messages that wait together travel together.
//! - A subscription ends when its channel does (`consume`); the worker then subscribes again.
//! - No wait is without an end. The library's own recovery is not used: it does not survive a broker that comes back empty.
//!
//! Tests: `tests/suite`, against a real RabbitMQ, with outages made by a proxy.

mod consume;
mod link;
mod publish;
mod session;

use std::sync::Arc;
use std::time::Duration;

use aig_domain::Secret;
use async_trait::async_trait;
use lapin::uri::AMQPUri;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::{Broker, BrokerError, Message, Subscription};
use consume::Consumers;
use link::Link;
use publish::Publisher;
use session::Purpose;

/// The end of every request to the broker that is not a confirm: open a channel, declare, consume, acknowledge.
const RPC: Duration = Duration::from_secs(5);
/// The end of [`RabbitBroker::close`].
const CLOSE: Duration = Duration::from_secs(2);

/// Where RabbitMQ is and what it holds for us.
#[derive(Clone, Debug)]
pub struct RabbitConfig {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://`.
    pub url: Secret,
    /// What the names of the queues begin with on the broker, such as `aigateway.`.
    pub prefix: String,
    /// The queues, without the prefix. All of them are made at start.
    pub queues: &'static [&'static str],
}

/// RabbitMQ. Dropping it ends its connections too, in the background; [`Broker::close`] waits for it.
pub struct RabbitBroker {
    publisher: Publisher,
    consumers: Consumers,
    stop: CancellationToken,
    _stops_when_dropped: DropGuard,
}

/// What every part of the adapter knows.
struct Shared {
    uri: AMQPUri,
    queues: Vec<QueueName>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// A queue's name here and on the broker.
struct QueueName {
    ours: &'static str,
    wire: String,
}

impl Shared {
    /// The place of the queue `ours` in the list.
    fn queue(&self, ours: &str) -> Result<usize, BrokerError> {
        let found = self.queues.iter().position(|queue| queue.ours == ours);
        found.ok_or_else(|| BrokerError::Unroutable(ours.to_owned()))
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl RabbitBroker {
    /// Connects, declares the queues, and keeps both up from then on, on `tracker`. The first try takes 5 s at most. A broker
    /// that cannot be reached or refuses us is no error, since jobs are accepted without it: it is a warning, and tried again.
    ///
    /// # Errors
    /// [`BrokerError::Url`], and [`BrokerError::Topology`] when a queue exists with other settings: neither passes by itself.
    pub async fn start(config: RabbitConfig, tracker: &TaskTracker) -> Result<Self, BrokerError> {
        let uri = session::uri(&config.url)?;
        let wire = |ours: &&'static str| QueueName { ours, wire: format!("{}{ours}", config.prefix) };
        let queues = config.queues.iter().map(wire).collect();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let shared = Arc::new(Shared { uri, queues, tracker: tracker.clone(), stop: stop.clone() });
        let publishing = Link::start(Purpose::Publish, &shared);
        let consuming = Link::start(Purpose::Consume, &shared);
        let (one, other) = tokio::join!(publishing.tried(), consuming.tried());
        let failed = [one, other].into_iter().filter_map(Result::err);
        // What does not pass by itself comes first.
        match failed.max_by_key(|error| matches!(error, BrokerError::Topology(_))) {
            None => {}
            Some(error @ BrokerError::Topology(_)) => return Err(error),
            Some(error) => tracing::warn!(
                %error,
                "RabbitMQ cannot be used yet; jobs are accepted and wait, and connecting goes on until it works"
            ),
        }
        let publisher = Publisher::start(publishing, &shared);
        let consumers = Consumers::new(consuming, shared);
        Ok(Self { publisher, consumers, stop, _stops_when_dropped: guard })
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        self.publisher.publish(message).await
    }

    async fn subscribe(&self, queue: &str, prefetch: usize) -> Result<Box<dyn Subscription>, BrokerError> {
        Ok(Box::new(self.consumers.subscribe(queue, prefetch).await?))
    }

    async fn waiting(&self, queue: &str) -> Result<u64, BrokerError> {
        self.consumers.waiting(queue).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.publisher.link().check()?;
        self.consumers.link().check()
    }

    async fn close(&self) {
        self.stop.cancel();
        let both = async { tokio::join!(self.publisher.link().closed(), self.consumers.link().closed()) };
        if tokio::time::timeout(CLOSE, both).await.is_err() {
            tracing::warn!("RabbitMQ did not let us go in time");
        }
    }
}
