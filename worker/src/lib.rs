//! The worker: claims due tasks, calls providers, keeps results, delivers webhooks.
//!
//! One loop per queue ([`consume`]) turns free permits into claimed tasks; each task runs its handler ([`handlers`]) in a
//! tracked tokio task. Nothing here trusts its own memory: every write names the lease it was claimed with, and whoever
//! lost it drops the work.
//!
//! **Shutdown**: loops stop claiming; jobs that wait between polls go back at once; running steps get 15 s, then they go
//! back too, which is no crash.

mod consume;
mod handlers;
mod persist;
mod turn;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aig_domain::task::WEBHOOK_QUEUE;
use aig_platform::{App, Shutdown};
use aig_tasks::{ProcessLease, Role};
use anyhow::Context as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use turn::Turns;
use watch::Watch;

/// How long running steps may go on after the shutdown began.
const STEP_GRACE: Duration = Duration::from_secs(15);
/// How long the hand-back of what is left may take after that, and the end of the lease.
const RELEASE_GRACE: Duration = Duration::from_secs(3);

/// What all tasks of this process share.
pub(crate) struct Worker {
    app: App,
    shutdown: Shutdown,
    lease: ProcessLease,
    /// Everything a task of this worker does runs on it.
    running: TaskTracker,
    /// Ends steps that outlived the shutdown's grace.
    abort: CancellationToken,
    turns: Turns,
    watch: Watch,
    /// The permits of each queue that this process serves.
    permits: BTreeMap<&'static str, Arc<Semaphore>>,
    /// Bounds the jobs that wait between polls.
    parked: Arc<Semaphore>,
}

impl Worker {
    /// A permit to deliver the webhook of a job that ends here and now, which saves its way through the queue. Only while most
    /// permits are free: else there are others who wait for one.
    fn to_deliver(&self) -> Option<OwnedSemaphorePermit> {
        let permits = self.permits.get(WEBHOOK_QUEUE)?;
        let at_leisure = permits.available_permits() > self.app.config.worker.webhook_concurrency / 2;
        let fit = at_leisure && self.lease.is_good() && !self.shutdown.is_stopping();
        Arc::clone(permits).try_acquire_owned().ok().filter(|_| fit)
    }
}

/// Works until the shutdown begins and what was claimed is done or handed back.
///
/// # Errors
/// When the embedded database fails at the start. PostgreSQL may be away: nothing is claimed until it is there.
pub async fn run(app: App, shutdown: Shutdown) -> anyhow::Result<()> {
    let times = app.config.tasks.lease_times();
    let lease = ProcessLease::begin(Role::Worker, &app.store, &app.config.store(), Arc::clone(&app.clock), times)
        .await
        .context("the worker could not register its lease")?;
    let settings = &app.config.worker;
    let permits = settings.queues()?.into_iter().map(|queue| {
        let all = if queue == WEBHOOK_QUEUE { settings.webhook_concurrency } else { settings.concurrency };
        (queue, Arc::new(Semaphore::new(all)))
    });
    let worker = Arc::new(Worker {
        permits: permits.collect(),
        parked: Arc::new(Semaphore::new(app.config.worker.parked_limit)),
        watch: Watch::default(),
        turns: Turns::default(),
        abort: CancellationToken::new(),
        running: TaskTracker::new(),
        lease,
        shutdown,
        app,
    });
    let loops = TaskTracker::new();
    for (queue, permits) in &worker.permits {
        loops.spawn(consume::run(Arc::clone(&worker), queue, Arc::clone(permits)));
    }
    loops.spawn(watch::run(Arc::clone(&worker)));
    loops.spawn(consume::release_lost(Arc::clone(&worker)));
    tracing::info!(worker = worker.lease.id(), "the worker is ready");
    loops.close();
    loops.wait().await;
    worker.running.close();
    if tokio::time::timeout(STEP_GRACE, worker.running.wait()).await.is_err() {
        tracing::warn!(steps = worker.running.len(), "steps are still running; their tasks go back to the queue");
        worker.abort.cancel();
        if tokio::time::timeout(RELEASE_GRACE, worker.running.wait()).await.is_err() {
            tracing::warn!(
                steps = worker.running.len(),
                "tasks were not handed back in time; they return with the lease"
            );
        }
    }
    match tokio::time::timeout(RELEASE_GRACE, worker.lease.end(&worker.app.store)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the worker's lease was not ended; it runs out by itself"),
        Err(_) => tracing::warn!("the worker's lease was not ended in time; it runs out by itself"),
    }
    Ok(())
}
