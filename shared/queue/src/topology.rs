//! The queues on RabbitMQ: their settings and their declaration, in this one place.
//!
//! Durable quorum queues, used through the default exchange; nothing that needs a plugin or that RabbitMQ 4 dropped.
//! Declaring is idempotent. A queue that somebody made with other settings is [`BrokerError::Topology`], which names the
//! queue and what to do. Brokers out there hold queues with these settings: changing one means new names for all queues.
//! Tests: `tests/suite/topology.rs`.

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind};

use crate::BrokerError;

/// How many messages one queue holds, more or less; what is above is refused (a nack). The dispatch tick keeps a queue at
/// sixty-four; accepted jobs may ring while no worker listens at all.
const MAX_LENGTH: i32 = 10_000;
/// How often a message comes back before it is dropped. A bell that rang this often has been heard, and the dispatch tick
/// rings again; without a limit one that always fails would go round for ever, and RabbitMQ 4 has this one by default.
const DELIVERY_LIMIT: i32 = 20;

/// Makes the queue `name` unless it is there; gives the number of messages that are ready in it.
pub(crate) async fn declare(channel: &Channel, name: &str) -> Result<u64, BrokerError> {
    let mut settings = FieldTable::default();
    settings.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    settings.insert("x-max-length".into(), AMQPValue::LongInt(MAX_LENGTH));
    settings.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    settings.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    match channel.queue_declare(name.into(), QueueDeclareOptions::durable(), settings).await {
        Ok(queue) => Ok(queue.message_count().into()),
        Err(error) => Err(explained(name, error)),
    }
}

fn explained(name: &str, error: lapin::Error) -> BrokerError {
    match error.kind() {
        ErrorKind::ProtocolError(error) if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
            BrokerError::Topology(format!(
                "the queue `{name}` exists on the broker with other settings: delete it, which loses no work, or choose \
                 another prefix for the queues ({})",
                error.get_message()
            ))
        }
        _ => error.into(),
    }
}
