//! Listening and counting, on the consuming connection.
//!
//! Promises: a subscription has a channel of its own and ends, giving `None` for ever, when that channel, its queue or the
//! connection is gone; what was handed out and not acknowledged goes back to the queue, also when the subscription is dropped;
//! nothing waits longer than [`RPC`]. Tests: `tests/suite/consume.rs`, `tests/suite/contract.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery as Raw;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::link::Link;
use super::session::Session;
use super::{RPC, Shared};
use crate::{BrokerError, Delivery, Receipt, Subscription, topology};

const NO_ANSWER: &str = "no answer in time";

/// What listens and counts.
pub(super) struct Consumers {
    link: Link,
    shared: Arc<Shared>,
    /// The channel for counting, kept from one count to the next.
    counting: Mutex<Option<Channel>>,
}

impl Consumers {
    pub(super) fn new(link: Link, shared: Arc<Shared>) -> Self {
        Self { link, shared, counting: Mutex::default() }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) async fn subscribe(&self, queue: &str, prefetch: usize) -> Result<RabbitSubscription, BrokerError> {
        let name = &self.shared.queues[self.shared.queue(queue)?].wire;
        let session = self.link.session_within(RPC).await?;
        // Zero would mean that there is no bound.
        let prefetch = u16::try_from(prefetch.max(1)).unwrap_or(u16::MAX);
        in_time(&session, async {
            let channel = session.new_channel().await?;
            // Somebody may have deleted the queue, which is why the worker subscribes again.
            topology::declare(&channel, name).await?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            let consuming = channel.basic_consume(name.as_str().into(), "".into(), options, FieldTable::default());
            let consumer = consuming.await?;
            let lane = Arc::new(Lane { channel, shared: Arc::clone(&self.shared), runtime: Handle::current() });
            Ok(RabbitSubscription { consumer: Some(consumer), lane })
        })
        .await
    }

    /// Counts by declaring, which also brings back a queue that somebody deleted.
    pub(super) async fn waiting(&self, queue: &str) -> Result<u64, BrokerError> {
        let session = self.link.session()?;
        let name = &self.shared.queues[self.shared.queue(queue)?].wire;
        in_time(&session, async {
            let mut kept = self.counting.lock().await;
            let channel = match kept.take() {
                Some(channel) if channel.status().connected() => channel,
                _ => session.new_channel().await?,
            };
            let waiting = topology::declare(&channel, name).await?;
            *kept = Some(channel);
            Ok(waiting)
        })
        .await
    }
}

/// Ends a request that takes too long, and the session with it: such a connection is no good.
async fn in_time<T>(
    session: &Session,
    request: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    timeout(RPC, request).await.unwrap_or_else(|_| {
        session.give_up(NO_ANSWER);
        Err(BrokerError::Unavailable(NO_ANSWER.to_owned()))
    })
}

/// The channel of a subscription. It is closed when the subscription and all that it handed out are gone.
struct Lane {
    channel: Channel,
    shared: Arc<Shared>,
    runtime: Handle,
}

impl Lane {
    /// Runs what a `drop` cannot wait for.
    fn later(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.tracker.spawn_on(async move { drop(timeout(RPC, work).await) }, &self.runtime);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let channel = self.channel.clone();
        // An error here is a channel that is closed already.
        self.later(async move { drop(channel.close(200, "bye".into()).await) });
    }
}

/// Puts a message back. A reject, not a nack: RabbitMQ 4.3 counts only the former towards the delivery limit.
async fn put_back(acker: Acker) {
    // An error here is a channel that is gone, and the message is back already.
    drop(acker.reject(BasicRejectOptions { requeue: true }).await);
}

/// A listener to one queue.
pub(super) struct RabbitSubscription {
    /// `None` when it has ended.
    consumer: Option<Consumer>,
    lane: Arc<Lane>,
}

impl RabbitSubscription {
    fn handed_out(&mut self, next: Option<lapin::Result<Raw>>) -> Option<Delivery> {
        match next {
            Some(Ok(raw)) => {
                let message = serde_json::from_slice(&raw.data).ok();
                let receipt = RabbitReceipt { acker: Some(raw.acker), lane: Arc::clone(&self.lane) };
                Some(Delivery { message, receipt: Box::new(receipt) })
            }
            ended => {
                let error = ended.and_then(Result::err).map(tracing::field::display);
                tracing::debug!(error, "a subscription ended");
                self.consumer = None;
                None
            }
        }
    }
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        let consumer = self.consumer.as_mut()?;
        let next = tokio::select! {
            next = consumer.next() => next,
            () = self.lane.shared.stop.cancelled() => None,
        };
        self.handed_out(next)
    }

    fn try_next(&mut self) -> Option<Delivery> {
        let next = self.consumer.as_mut()?.next().now_or_never()?;
        self.handed_out(next)
    }
}

impl Drop for RabbitSubscription {
    fn drop(&mut self) {
        let Some(mut consumer) = self.consumer.take() else { return };
        let lane = Arc::clone(&self.lane);
        self.lane.later(async move {
            // Nothing comes after the broker's answer; what came before and was not handed out goes back.
            let cancelled = lane.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
            while cancelled.is_ok()
                && let Some(Some(Ok(raw))) = consumer.next().now_or_never()
            {
                put_back(raw.acker).await;
            }
        });
    }
}

struct RabbitReceipt {
    /// `None` when the broker has been told.
    acker: Option<Acker>,
    lane: Arc<Lane>,
}

#[async_trait]
impl Receipt for RabbitReceipt {
    async fn ack(&mut self) -> Result<(), BrokerError> {
        let Some(acker) = self.acker.take() else { return Ok(()) };
        match timeout(RPC, acker.ack(BasicAckOptions::default())).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(BrokerError::Unavailable("the channel of this message is gone".to_owned())),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(BrokerError::Unavailable(NO_ANSWER.to_owned())),
        }
    }
}

impl Drop for RabbitReceipt {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            self.lane.later(put_back(acker));
        }
    }
}
