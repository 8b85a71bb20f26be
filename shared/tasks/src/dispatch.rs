//! The dispatch tick: makes waiting tasks ready and rings for what is ready.

use aig_domain::Error;
use aig_queue::Message;

use crate::Tasks;

impl Tasks {
    /// One tick: per queue, publishes `min(due, 1000) − messages waiting`. This loop alone is outbox, delay queue, crash
    /// recovery and broker-outage recovery.
    ///
    /// # Errors
    /// When the store fails. A broker that fails is logged: the next tick tries again.
    pub async fn dispatch(&self) -> Result<(), Error> {
        self.store.promote_due().await?;
        for due in self.store.due().await? {
            #[expect(clippy::cast_precision_loss, reason = "a gauge; counted up to 1,000")]
            metrics::gauge!("aig_tasks_ready", "queue" => due.queue).set(due.ready as f64);
            let waiting = match self.broker.waiting(due.queue).await {
                Ok(waiting) => waiting,
                Err(error) => {
                    tracing::warn!(queue = due.queue, %error, "the broker does not answer; trying again at the next tick");
                    continue;
                }
            };
            for _ in waiting..due.ready {
                let message = Message { queue: due.queue.to_owned(), trace: Vec::new() };
                if self.broker.publish(message).await.is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}
