//! The scheduler: what happens by the clock. Each tick is a loop of its own, so that a slow one delays no other. Of several
//! schedulers only the [leader] ticks.

mod leader;
mod ticks;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aig_domain::Error;
use aig_platform::{App, Shutdown};
use aig_tasks::{ProcessLease, Role};
use anyhow::Context as _;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use leader::Leader;

/// How long the end of the process's lease may take.
const END: Duration = Duration::from_secs(2);

/// Runs all ticks until the shutdown begins.
///
/// # Errors
/// When the embedded database fails at the start. A tick that fails is logged and tries again.
pub async fn run(app: App, shutdown: Shutdown) -> anyhow::Result<()> {
    let times = &app.config.tasks;
    let lease = ProcessLease::begin(
        Role::Scheduler,
        &app.store,
        &app.config.store(),
        Arc::clone(&app.clock),
        times.lease_times(),
    )
    .await
    .context("the scheduler could not register itself")?;
    let leader = Leader::new(app.store.clone(), Arc::clone(&app.clock));
    let loops = TaskTracker::new();
    {
        let (leader, shutdown) = (leader.clone(), shutdown.clone());
        loops.spawn(async move { leader.run(shutdown.stopping()).await });
    }
    let (dispatch, rescue, retain) = (times.dispatch_interval(), times.rescue_interval(), times.retain_interval());
    let ticker = Ticker { shutdown, leader };
    {
        let app = app.clone();
        loops.spawn(ticker.clone().every(dispatch, "dispatch", move || ticks::dispatch::tick(app.clone())));
    }
    {
        let app = app.clone();
        loops.spawn(ticker.clone().every(rescue, "rescue", move || ticks::rescue::tick(app.clone())));
    }
    {
        let app = app.clone();
        loops.spawn(ticker.clone().every(rescue, "overdue", move || ticks::overdue::tick(app.clone())));
    }
    {
        let app = app.clone();
        loops.spawn(ticker.every(retain, "retain", move || ticks::retain::tick(app.clone())));
    }
    loops.close();
    loops.wait().await;
    if !matches!(tokio::time::timeout(END, lease.end(&app.store)).await, Ok(Ok(()))) {
        tracing::warn!("the scheduler's lease was not ended; it runs out by itself");
    }
    Ok(())
}

/// When ticks happen.
#[derive(Clone)]
struct Ticker {
    shutdown: Shutdown,
    leader: Leader,
}

impl Ticker {
    async fn every<F>(self, interval: Duration, name: &'static str, tick: impl Fn() -> F)
    where
        F: Future<Output = Result<(), Error>>,
    {
        let mut timer = tokio::time::interval(interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.stopping() => return,
                _ = timer.tick() => {}
            }
            if !self.leader.leads() {
                continue;
            }
            // A tick is not cut by the shutdown: each is short, and bounded in what it does.
            if let Err(error) = tick().await {
                metrics::counter!("aig_tick_failures_total", "tick" => name).increment(1);
                tracing::warn!(tick = name, %error, "a tick failed; trying again at the next one");
            }
        }
    }
}
