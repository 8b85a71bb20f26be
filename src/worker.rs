//! `aigateway worker`: works on jobs and webhooks, beside other workers.

use aig_platform::config::SplitRole;
use aig_platform::datadir::DataDir;
use aig_platform::lifecycle::Role;
use aig_platform::{App, Config, Shutdown};

use crate::process::Process;

/// What one worker process does.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// The queues to serve: video, music, 3d, webhook; all when missing
    #[arg(long, value_delimiter = ',', value_name = "QUEUE,…")]
    queues: Option<Vec<String>>,
    /// Steps at once, per queue of jobs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
}

/// Runs until it is told to stop.
pub(crate) async fn run(mut config: Config, flags: Flags) -> anyhow::Result<()> {
    config.check_split(SplitRole::Worker)?;
    if let Some(queues) = flags.queues {
        config.worker.queues = queues;
        config.worker.queues()?;
    }
    if let Some(concurrency) = flags.concurrency {
        config.worker.concurrency = usize::from(concurrency);
    }
    let folder = DataDir::open(&config.data_dir)?;
    let address = config.listen.to_string();
    let process = Process::build(config, &folder, &address).await?;
    let mut roles: Vec<Role> = vec![("worker", Box::pin(verified(process.app.clone(), process.shutdown.clone())))];
    roles.extend(process.health().await?);
    process.run(roles).await
}

async fn verified(app: App, shutdown: Shutdown) -> anyhow::Result<()> {
    app.verify(&shutdown).await?;
    aig_worker::run(app, shutdown).await
}
