//! `aigateway scheduler`: what happens by the clock. Several may run; one leads.

use aig_platform::config::SplitRole;
use aig_platform::datadir::DataDir;
use aig_platform::lifecycle::Role;
use aig_platform::{App, Config, Shutdown};

use crate::process::Process;

/// Runs until it is told to stop.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    config.check_split(SplitRole::Scheduler)?;
    let folder = DataDir::open(&config.data_dir)?;
    let address = config.listen.to_string();
    let process = Process::build(config, &folder, &address).await?;
    let mut roles: Vec<Role> = vec![("scheduler", Box::pin(verified(process.app.clone(), process.shutdown.clone())))];
    roles.extend(process.health().await?);
    process.run(roles).await
}

async fn verified(app: App, shutdown: Shutdown) -> anyhow::Result<()> {
    app.verify(&shutdown).await?;
    aig_scheduler::run(app, shutdown).await
}
