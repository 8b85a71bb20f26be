//! The dispatch tick: makes waiting tasks ready and rings for what is ready.

use aig_domain::Error;
use aig_queue::{BrokerError, Message};
use futures_util::future::join_all;

use crate::Tasks;

/// How many due tasks one message stands for. Whoever hears one claims until the queue is dry, so that a message has to wake
/// a worker, not to carry a task: half of a worker's default permits keeps it busy until it asks again.
const TASKS_PER_MESSAGE: u64 = 16;
/// The most messages that wait in one queue, however much is due: enough to wake as many workers. A backlog of a hundred
/// thousand tasks would otherwise be a hundred thousand messages, each confirmed and each worth nothing.
const MOST_MESSAGES: u64 = 64;

/// How many messages are to wait in a queue where this many tasks are due.
fn wanted(due: u64) -> u64 {
    due.div_ceil(TASKS_PER_MESSAGE).min(MOST_MESSAGES)
}

impl Tasks {
    /// One tick: per queue, publishes `min(⌈due ÷ 16⌉, 64) − messages waiting`. This loop alone is outbox, delay queue, crash
    /// recovery and broker-outage recovery.
    ///
    /// # Errors
    /// When the store fails. A broker that fails is logged: the next tick tries again.
    pub async fn dispatch(&self) -> Result<(), Error> {
        self.store.promote_due().await?;
        let queues = self.store.due().await?;
        for due in &queues {
            #[expect(clippy::cast_precision_loss, reason = "a gauge; counted up to 1,024")]
            metrics::gauge!("aig_tasks_ready", "queue" => due.queue).set(due.ready as f64);
        }
        let rung = join_all(queues.iter().map(|due| self.ring_for(due.queue, wanted(due.ready)))).await;
        for (due, rung) in queues.iter().zip(rung) {
            if let Err(error) = rung
                && !matches!(error, BrokerError::Full(_))
            {
                tracing::warn!(queue = due.queue, %error, "the broker fails; trying again at the next tick");
            }
        }
        Ok(())
    }

    async fn ring_for(&self, queue: &'static str, wanted: u64) -> Result<(), BrokerError> {
        if wanted == 0 {
            return Ok(());
        }
        for _ in self.broker.waiting(queue).await?..wanted {
            self.broker.publish(Message { queue: queue.to_owned(), trace: Vec::new() }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stands_for_many_tasks_and_there_are_few() {
        let of = [0, 1, 16, 17, 1000, 1024, 100_000].map(wanted);
        assert_eq!(of, [0, 1, 1, 2, 63, 64, 64]);
    }
}
