//! The task engine: everything asynchronous is one row in `tasks`, written in the same transaction as what it serves.
//!
//! - [`Tasks::submit`] accepts a job: durable when it returns, the doorbell rung without making the caller wait.
//! - [`Tasks::claim`] hands due tasks to a worker; each write that follows names the lease's epoch.
//! - [`ProcessLease`] is the row of a process in one of its roles, alive while it is renewed.
//! - [`Tasks::end`] and [`Tasks::cancel`] write a job's one terminal state with everything that goes with it.
//! - [`Tasks::dispatch`] is outbox, delay queue, crash recovery and broker-outage recovery in one loop.
//!
//! Tested by `shared/tasks/tests/engine.rs`, its statements on both databases by `shared/store/tests/suite`, and end to end
//! by `tests/it`.

mod cancel;
mod claim;
mod dispatch;
mod enqueue;
mod finish;
mod lease;

use std::sync::Arc;

use aig_cache::Bus;
use aig_domain::Clock;
use aig_domain::links::Links;
use aig_queue::{Broker, Message};
use aig_store::Store;
use tokio_util::task::TaskTracker;

pub use aig_store::Role;
pub use enqueue::{Accepted, Idempotency, NewJob};
pub use finish::Ended;
pub use lease::{LeaseTimes, ProcessLease};

/// The task engine. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    store: Store,
    broker: Arc<dyn Broker>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    links: Links,
    tracker: TaskTracker,
    lost_claims: claim::LostClaims,
}

impl Tasks {
    /// Puts the engine together from its parts.
    pub fn new(
        store: Store,
        broker: Arc<dyn Broker>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        links: Links,
        tracker: TaskTracker,
    ) -> Self {
        Self { store, broker, bus, clock, links, tracker, lost_claims: claim::LostClaims::default() }
    }

    /// Rings the bell of `queue` without waiting. What is lost here, the dispatch tick makes good.
    fn ring(&self, queue: &'static str, trace: String) {
        let broker = Arc::clone(&self.broker);
        self.tracker.spawn(async move {
            let message = Message { queue: queue.to_owned(), trace: vec![trace] };
            if let Err(error) = broker.publish(message).await {
                tracing::debug!(queue, %error, "a message was not sent; the next dispatch tick rings instead");
            }
        });
    }
}
