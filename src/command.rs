//! The subcommands.

use aig_platform::Config;
use clap::Subcommand;

use crate::{all, api, catalog, doctor, migrate, scheduler, worker};

/// What the binary is to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process (the default)
    All,
    /// Answer HTTP, beside workers and schedulers in processes of their own
    Api,
    /// Work on jobs and webhooks
    Worker(worker::Flags),
    /// Watch the clock; several may run, one leads
    Scheduler,
    /// Bring the database's schema up to date, and make the first account if there is none
    Migrate,
    /// Import list prices
    Catalog(catalog::Args),
    /// Look for jobs and money that are not as they must be
    Doctor,
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<()> {
        match self {
            Self::All => all::run(config).await,
            Self::Api => api::run(config).await,
            Self::Worker(flags) => worker::run(config, flags).await,
            Self::Scheduler => scheduler::run(config).await,
            Self::Migrate => migrate::run(config).await,
            Self::Catalog(args) => catalog::run(config, args).await,
            Self::Doctor => doctor::run(config).await,
        }
    }
}
