//! RabbitMQ: how many persistent messages it confirms per second on a quorum queue.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::timeout;

use crate::stats::rate;

/// How many messages.
const MESSAGES: u64 = 20_000;
/// How many wait for their confirm at once.
pub const WINDOW: usize = 256;
/// The size of each.
pub const BYTES: usize = 500;
const PATIENCE: Duration = Duration::from_mins(1);
/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Connects, so that somebody who is not there is heard of at once.
pub async fn connect(url: &str) -> anyhow::Result<Connection> {
    let connected = timeout(Duration::from_secs(5), Connection::connect(url, ConnectionProperties::default()));
    connected.await.context("no answer")?.context("RabbitMQ cannot be reached")
}

/// Confirmed publishes per second on a queue of its own.
pub async fn per_second(url: &str, queue: &str) -> anyhow::Result<f64> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, arguments).await?;
    let measured = timeout(PATIENCE, publish(&channel, queue)).await;
    let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
    let took = measured.context("RabbitMQ does not confirm in time")??;
    deleted?;
    connection.close(200, "bye".into()).await?;
    Ok(rate(MESSAGES, took))
}

async fn publish(channel: &Channel, queue: &str) -> anyhow::Result<Duration> {
    let body = [b'x'; BYTES];
    let body = body.as_slice();
    let begun = Instant::now();
    let published = futures_util::stream::iter(0..MESSAGES)
        .map(|_| async move {
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let sent = channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties);
            let confirmed = sent.await?.await?;
            anyhow::ensure!(matches!(confirmed, Confirmation::Ack(None)), "RabbitMQ did not take a message");
            anyhow::Ok(())
        })
        .buffer_unordered(WINDOW);
    let mut published = std::pin::pin!(published);
    while let Some(one) = published.next().await {
        one?;
    }
    Ok(begun.elapsed())
}

/// Deletes `queues`; those that are not there are deleted already.
pub async fn delete(url: &str, queues: &[String]) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    for queue in queues {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    Ok(connection.close(200, "bye".into()).await?)
}
