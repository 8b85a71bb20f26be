//! `aigateway migrate`: the schema, and the first account.

use std::sync::Arc;

use aig_domain::Clock;
use aig_domain::clock::SystemClock;
use aig_platform::datadir::{DataDir, DatabaseLock};
use aig_platform::{App, Config, first_account};
use tokio_util::task::TaskTracker;

/// Brings the database up to date and ends.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let folder = DataDir::open(&config.data_dir)?;
    let _lock = config.embedded_database().map(|database| DatabaseLock::take(&database)).transpose()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let address = config.listen.to_string();
    let app = App::build(config, &folder, &address, Arc::clone(&clock), TaskTracker::new()).await?;
    app.prepare().await?;
    first_account::ensure(&app.store, &folder, &app.ring, &*clock).await?;
    app.close().await;
    tracing::info!("the database is up to date");
    Ok(())
}
