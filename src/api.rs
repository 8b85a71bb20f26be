//! `aigateway api`: HTTP, beside workers and schedulers in processes of their own.

use aig_platform::config::SplitRole;
use aig_platform::datadir::DataDir;
use aig_platform::lifecycle::Role;
use aig_platform::{App, Config, Shutdown};

use crate::process::{Process, listen};

/// Runs until it is told to stop. Answers at once, also while the database is still away: with 503, until it is back.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    config.check_split(SplitRole::Api)?;
    let folder = DataDir::open(&config.data_dir)?;
    let listener = listen(config.listen).await?;
    let address = listener.local_addr()?.to_string();
    let process = Process::build(config, &folder, &address).await?;
    let (app, shutdown) = (process.app.clone(), process.shutdown.clone());
    folder.write("url", &format!("http://{address}\n"))?;
    tracing::info!(address, "the API listens");
    let roles: Vec<Role> = vec![
        ("database check", Box::pin(verified(app.clone(), shutdown.clone()))),
        ("api", Box::pin(aig_api::run(app, listener, shutdown))),
    ];
    let ended = process.run(roles).await;
    folder.remove("url");
    ended
}

async fn verified(app: App, shutdown: Shutdown) -> anyhow::Result<()> {
    app.verify(&shutdown).await?;
    shutdown.stopping().await;
    Ok(())
}
