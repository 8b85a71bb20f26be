//! The loop of one queue: permit, bell, claim, ack, run.
//!
//! A permit comes before the claim, so that nothing is claimed that cannot run; the ack comes before the work, since the
//! row, not the message, stands for it. As permits come free the loop claims again until the queue is dry, and only then
//! waits for the bell. While the broker is away, the loop looks by itself about once a second.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use aig_domain::retry::jitter;
use aig_queue::{Delivery, Subscription};
use aig_store::{Claimed, Work};
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use crate::handlers::{generate, webhook};
use crate::{Worker, handlers::Held};

/// The most tasks of one claim, and the most messages taken at once.
const CLAIM_LIMIT: usize = 64;
/// The pause after the store or the broker failed, or while the lease is not good.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a bell may be silent before a worker looks by itself: a broker that is short of memory takes messages from nobody,
/// and says so only to those who send some.
const SILENCE: Duration = Duration::from_secs(5);

/// Consumes `queue` with as many steps at once as there are `permits`, until the shutdown begins.
pub(crate) async fn run(worker: Arc<Worker>, queue: &'static str, permits: Arc<Semaphore>) {
    let stopping = worker.shutdown.clone();
    tokio::select! {
        () = stopping.stopping() => {}
        () = consume(&worker, queue, &permits) => {}
    }
}

async fn consume(worker: &Arc<Worker>, queue: &'static str, permits: &Arc<Semaphore>) {
    let mut subscription = None;
    let mut dry = false;
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return };
        if subscription.is_none() {
            subscription = subscribe(worker, queue).await;
            // What rang before is not heard any more.
            dry &= subscription.is_none();
        }
        let mut bells: Vec<Delivery> = Vec::new();
        if dry {
            bells.extend(rung(worker, &mut subscription).await);
        }
        while let Some(bell) = &mut subscription
            && bells.len() < CLAIM_LIMIT
            && let Some(delivery) = bell.try_next()
        {
            bells.push(delivery);
        }
        if !worker.lease.is_good() {
            tracing::warn!(queue, "the lease was not renewed; nothing is claimed");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let mut turns = vec![permit];
        while turns.len() < CLAIM_LIMIT
            && let Ok(more) = Arc::clone(permits).try_acquire_owned()
        {
            turns.push(more);
        }
        let Some(claimed) = claim(worker, queue, turns.len(), bells).await else { continue };
        dry = claimed.len() < turns.len();
        debug_assert!(claimed.len() <= turns.len(), "a claim keeps to its limit");
        for (task, permit) in claimed.into_iter().zip(turns) {
            start(worker, queue, task, permit);
        }
    }
}

/// Puts back what claims took whose answers were lost, until the shutdown begins: then the end of the lease does it.
pub(crate) async fn release_lost(worker: Arc<Worker>) {
    loop {
        tokio::select! {
            () = worker.shutdown.stopping() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        match worker.app.tasks.release_lost_claims().await {
            Ok(0) => {}
            Ok(released) => tracing::warn!(released, "a claim was lost on its way; its tasks are back in their queue"),
            Err(error) => tracing::debug!(%error, "claims without an answer are looked for again"),
        }
    }
}

/// Listens to `queue`; `None` while the broker is away.
async fn subscribe(worker: &Worker, queue: &'static str) -> Option<Box<dyn Subscription>> {
    worker.app.broker.check().await.ok()?;
    match worker.app.broker.subscribe(queue, CLAIM_LIMIT).await {
        Ok(subscription) => Some(subscription),
        Err(error) => {
            tracing::warn!(queue, %error, "the broker does not let us listen; trying again");
            None
        }
    }
}

/// Waits until there may be work: until the bell rings. Nobody relies on that alone: after [`SILENCE`] the worker looks by
/// itself, and sooner while the broker is known to be away.
async fn rung(worker: &Worker, subscription: &mut Option<Box<dyn Subscription>>) -> Option<Delivery> {
    let Some(bell) = subscription else {
        tokio::time::sleep(jitter(PAUSE, 20)).await;
        return None;
    };
    let silence = tokio::time::sleep(jitter(SILENCE, 20));
    tokio::pin!(silence);
    loop {
        tokio::select! {
            rang = bell.next() => {
                if rang.is_none() {
                    *subscription = None;
                }
                return rang;
            }
            () = &mut silence => return None,
            () = tokio::time::sleep(jitter(PAUSE, 20)) => if worker.app.broker.check().await.is_err() {
                return None;
            },
        }
    }
}

/// Claims, then tells the broker that its messages were heard. On failure they go back to ring again.
async fn claim(worker: &Worker, queue: &'static str, limit: usize, bells: Vec<Delivery>) -> Option<Vec<Claimed>> {
    match worker.app.tasks.claim(&worker.lease.id(), queue, limit).await {
        Ok(claimed) => {
            for delivery in bells {
                if delivery.message.is_none() {
                    tracing::warn!(queue, "a message could not be read; it is dropped");
                }
                if let Err(error) = delivery.ack().await {
                    tracing::debug!(queue, %error, "a message was not acknowledged; it will ring again");
                }
            }
            Some(claimed)
        }
        Err(error) => {
            tracing::warn!(queue, %error, "nothing could be claimed; trying again");
            tokio::time::sleep(jitter(PAUSE, 20)).await;
            None
        }
    }
}

/// Runs a task that this worker holds, in a tracked tokio task.
pub(crate) fn start(worker: &Arc<Worker>, queue: &'static str, task: Claimed, permit: OwnedSemaphorePermit) {
    let Claimed { lease, attempt, crash_count, work } = task;
    let span = match &work {
        Work::Generate { job, .. } => tracing::info_span!("task", queue, job = job.id, request_id = job.request_id),
        Work::Webhook { event, .. } => tracing::info_span!("task", queue, job = event.job_id, event = event.id),
    };
    let held = Held { worker: Arc::clone(worker), lease, attempt, crash_count };
    let permits = Arc::clone(permit.semaphore());
    let task = async move {
        let on_panic = held.clone();
        let handler = async move {
            match work {
                // A burial only writes; it needs no turn of its own.
                Work::Generate { job, .. } if held.is_poison() => generate::bury(&held, &job).await,
                Work::Webhook { event, .. } if held.is_poison() => webhook::bury(&held, event).await,
                Work::Generate { job, claim } => {
                    let turn = held.worker.turns.with(permit, crash_count).await;
                    generate::run(held, *job, claim, permits, turn).await;
                }
                Work::Webhook { event, secrets } => {
                    let turn = held.worker.turns.with(permit, crash_count).await;
                    webhook::run(held, event, &secrets, turn).await;
                }
            }
        };
        // A handler that panics has crashed: the task rests, and is buried when it does so again and again.
        if AssertUnwindSafe(handler).catch_unwind().await.is_err() {
            tracing::error!("a handler panicked");
            on_panic.crash().await;
        }
    };
    worker.running.spawn(task.instrument(span));
}
