//! Commands that look at the database beside a server, also at the embedded one: the lock there stands for the leases of tasks, and
//! these commands touch no task.

use std::sync::Arc;

use aig_domain::Clock;
use aig_platform::{Config, Shutdown};
use aig_store::{Store, database_clock};
use anyhow::{Context as _, bail};
use tokio_util::task::TaskTracker;

/// Opens the database, runs `command` on it, and closes it. Never makes a database, and never changes its schema.
pub(crate) async fn with_store<T>(
    config: &Config,
    command: impl AsyncFnOnce(&Store, &dyn Clock) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if let Some(database) = config.embedded_database().filter(|database| !database.exists()) {
        bail!("there is no database {} yet; run `aigateway migrate`", database.display());
    }
    let (stop, tracker) = (Shutdown::new(), TaskTracker::new());
    let stopping = stop.clone();
    let clock = database_clock(&config.store(), &tracker, async move { stopping.stopping().await }).await?;
    let opened = Store::connect(&config.store(), Arc::clone(&clock), &tracker).await;
    let store = opened.context("the database cannot be opened")?;
    let ended = match store.check_schema().await {
        Ok(()) => command(&store, &*clock).await,
        Err(error) => Err(error).context("the database is not for this program; run `aigateway migrate`"),
    };
    stop.begin();
    store.close().await;
    tracker.close();
    tracker.wait().await;
    ended
}
