//! One process of the gateway, whatever its roles: its parts, its signals, its end.

use std::net::SocketAddr;
use std::process::ExitCode;

use aig_platform::datadir::DataDir;
use aig_platform::lifecycle::{Role, run_roles};
use aig_platform::{App, Config, Shutdown, health};
use aig_store::database_clock;
use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::signals;

/// Much is allocated on one thread and freed on another here, where it is the quicker one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A process whose parts are put together.
pub(crate) struct Process {
    pub(crate) app: App,
    pub(crate) shutdown: Shutdown,
    tracker: TaskTracker,
}

impl Process {
    /// Puts the parts together. `address` is where the API is reached when no public URL is configured.
    pub(crate) async fn build(config: Config, folder: &DataDir, address: &str) -> anyhow::Result<Self> {
        let (shutdown, tracker) = (Shutdown::new(), TaskTracker::new());
        signals::watch(shutdown.clone(), &TaskTracker::new())?;
        // Leases, periods and expiries of many machines are held against one clock: the database's.
        let stopping = shutdown.clone();
        let clock = database_clock(&config.store(), &tracker, async move { stopping.stopping().await })
            .await
            .context("the database's clock cannot be read")?;
        let app = App::build(config, folder, address, clock, tracker.clone()).await?;
        Ok(Self { app, shutdown, tracker })
    }

    /// Runs `roles` until the first signal, or until one of them ends, and then ends the process in order.
    pub(crate) async fn run(self, roles: Vec<Role>) -> anyhow::Result<()> {
        self.tracker.spawn(self.app.metrics.clone().upkeep(self.shutdown.clone()));
        let ended = run_roles(roles, &self.shutdown, &self.tracker).await;
        self.app.close().await;
        tracing::info!("stopped");
        ended
    }

    /// The role that answers the operator's questions where no API does, if it is configured.
    pub(crate) async fn health(&self) -> anyhow::Result<Option<Role>> {
        let Some(address) = self.app.config.health_listen else { return Ok(None) };
        let listener = listen(address).await?;
        tracing::info!(address = %listener.local_addr()?, "health is answered");
        let run = health::run(self.app.clone(), listener, self.shutdown.clone());
        Ok(Some(("health", Box::pin(run))))
    }
}

/// Listens on `address`.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Says what went wrong, if anything did, to whoever started the process.
#[expect(clippy::print_stderr, reason = "what went wrong is said to whoever started it")]
pub(crate) fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
