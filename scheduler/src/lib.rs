//! The scheduler: what happens by the clock. Each tick is a loop of its own, so that a slow one delays no other.

mod ticks;

use std::future::Future;
use std::time::Duration;

use aig_domain::Error;
use aig_platform::{App, Shutdown};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

/// Runs all ticks until the shutdown begins.
///
/// # Errors
/// None: a tick that fails is logged and tries again.
pub async fn run(app: App, shutdown: Shutdown) -> anyhow::Result<()> {
    let loops = TaskTracker::new();
    let times = &app.config.tasks;
    let (dispatch, rescue, retain) = (times.dispatch_interval(), times.rescue_interval(), times.retain_interval());
    {
        let app = app.clone();
        loops.spawn(every(dispatch, shutdown.clone(), "dispatch", move || ticks::dispatch::tick(app.clone())));
    }
    {
        let app = app.clone();
        loops.spawn(every(rescue, shutdown.clone(), "rescue", move || ticks::rescue::tick(app.clone())));
    }
    loops.spawn(every(retain, shutdown, "retain", move || ticks::retain::tick(app.clone())));
    loops.close();
    loops.wait().await;
    Ok(())
}

async fn every<F>(interval: Duration, shutdown: Shutdown, name: &'static str, tick: impl Fn() -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.stopping() => return,
            _ = timer.tick() => {}
        }
        // A tick is not cut by the shutdown: each is short, and bounded in what it does.
        if let Err(error) = tick().await {
            metrics::counter!("aig_tick_failures_total", "tick" => name).increment(1);
            tracing::warn!(tick = name, %error, "a tick failed; trying again at the next one");
        }
    }
}
