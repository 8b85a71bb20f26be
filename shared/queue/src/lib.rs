//! The broker: a doorbell for workers.
//!
//! A message says that a queue has work. The work itself is a row in the database, so that a message may be lost, doubled
//! or read by the wrong worker without harm: the dispatch tick rings again.
//!
//! - [`MemoryBroker`]: everything in one process.
//! - [`RabbitBroker`]: RabbitMQ 3.10 and later, for roles in processes of their own.
//!
//! What every broker promises is tested on both by `tests/suite/contract.rs`; what RabbitMQ alone can suffer by its neighbours.

mod memory;
mod rabbit;
mod topology;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use memory::MemoryBroker;
pub use rabbit::{RabbitBroker, RabbitConfig};

/// "This queue has work."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which queue.
    pub queue: String,
    /// The ids of the work that was committed when this was sent; only a trace, for people.
    pub trace: Vec<String>,
}

/// Why the broker did not do what it was asked. A message that was not published is no loss: the dispatch tick rings again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It holds as many messages as it may. Who listens has been told to come already.
    #[error("the queue `{0}` is full of messages")]
    Full(String),
    /// There is no such queue: somebody deleted it, and it is made again, or no broker was ever told of it.
    #[error("the broker has no queue `{0}`")]
    Unroutable(String),
    /// The broker took the message and said nothing in time. It may have arrived.
    #[error("the broker did not confirm a message for the queue `{0}` in time")]
    Unconfirmed(String),
    /// The broker cannot be reached now. Connecting goes on by itself.
    #[error("the broker cannot be used: {0}")]
    Unavailable(String),
    /// The broker holds a queue with other settings, which only a person can resolve.
    #[error("{0}")]
    Topology(String),
    /// The URL makes no sense. It holds a password, so it is not repeated here.
    #[error("the broker's URL cannot be read; it looks like amqp://user:password@host:5672/vhost")]
    Url,
    /// It was closed.
    #[error("the broker is closed")]
    Closed,
}

/// A broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Sends `message`; returns when the broker has taken it. Messages that wait at the same moment may arrive as one.
    async fn publish(&self, message: Message) -> Result<(), BrokerError>;

    /// Listens to `queue`. At most `prefetch` messages are out at once with this listener.
    async fn subscribe(&self, queue: &str, prefetch: usize) -> Result<Box<dyn Subscription>, BrokerError>;

    /// How many messages wait in `queue`.
    async fn waiting(&self, queue: &str) -> Result<u64, BrokerError>;

    /// Whether messages can be sent and received now.
    async fn check(&self) -> Result<(), BrokerError>;

    /// Ends all subscriptions. Everything asked of the broker afterwards is [`BrokerError::Closed`].
    async fn close(&self);
}

/// One listener to one queue.
#[async_trait]
pub trait Subscription: Send {
    /// The next message; `None` when the broker is closed or the subscription broke: then subscribe again. Safe to drop while
    /// it waits.
    async fn next(&mut self) -> Option<Delivery>;

    /// The next message if one is here already.
    fn try_next(&mut self) -> Option<Delivery>;
}

/// A message that was handed out. Dropping it without [`Delivery::ack`] puts it back.
#[must_use = "a delivery that is dropped goes back to its queue"]
pub struct Delivery {
    /// The message; `None` when its bytes make no sense.
    pub message: Option<Message>,
    receipt: Box<dyn Receipt>,
}

impl Delivery {
    /// Tells the broker that the message has been heard.
    pub async fn ack(mut self) -> Result<(), BrokerError> {
        self.receipt.ack().await
    }
}

/// How a broker is told that a message was heard.
#[async_trait]
trait Receipt: Send {
    async fn ack(&mut self) -> Result<(), BrokerError>;
}
