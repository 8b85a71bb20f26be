//! The broker: a doorbell for workers.
//!
//! A message says that a queue has work. The work itself is a row in the database, so that a message may be lost, doubled
//! or read by the wrong worker without harm: the dispatch tick rings again.

mod memory;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use memory::MemoryBroker;

/// "This queue has work."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which queue.
    pub queue: String,
    /// The ids of the work that was committed when this was sent; only a trace, for people.
    pub trace: Vec<String>,
}

/// Why the broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It holds as many messages as it may. Who listens has been told to come already.
    #[error("the queue `{0}` is full of messages")]
    Full(String),
    /// It is closed, or the connection is.
    #[error("the broker is closed")]
    Closed,
}

/// A broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Sends `message`; returns when the broker has taken it.
    async fn publish(&self, message: Message) -> Result<(), BrokerError>;

    /// Listens to `queue`. At most `prefetch` messages are out at once.
    async fn subscribe(&self, queue: &str, prefetch: usize) -> Result<Box<dyn Subscription>, BrokerError>;

    /// How many messages wait in `queue`.
    async fn waiting(&self, queue: &str) -> Result<u64, BrokerError>;

    /// Ends all subscriptions.
    async fn close(&self);
}

/// One listener to one queue.
#[async_trait]
pub trait Subscription: Send {
    /// The next message; `None` when the broker is closed or the subscription broke. Safe to drop while it waits.
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
