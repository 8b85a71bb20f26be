//! `aigateway migrate`: the schema, and the first account.

use aig_platform::config::{BrokerUrl, CacheUrl};
use aig_platform::datadir::{DataDir, DatabaseLock};
use aig_platform::{Config, first_account};

use crate::process::Process;

/// Brings the database up to date and ends.
pub(crate) async fn run(mut config: Config) -> anyhow::Result<()> {
    // Neither is needed for this, and either may be down.
    (config.broker, config.cache) = (BrokerUrl::Memory, CacheUrl::Memory);
    let folder = DataDir::open(&config.data_dir)?;
    let _lock = config.embedded_database().map(|database| DatabaseLock::take(&database)).transpose()?;
    let address = config.listen.to_string();
    let Process { app, .. } = Process::build(config, &folder, &address).await?;
    app.prepare().await?;
    first_account::ensure(&app.store, &folder, &app.ring, &*app.clock).await?;
    app.close().await;
    tracing::info!("the database is up to date");
    Ok(())
}
