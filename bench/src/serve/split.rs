//! The gateway in three processes, one for each role, on PostgreSQL, RabbitMQ and Redis, with its files in a folder.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aig_testkit::eventually;
use anyhow::Context as _;
use tempfile::TempDir;

use super::process::START;
use super::{Process, built};
use crate::control::confirms;
use crate::http1::get;
use crate::pin::{Cores, Place};

/// The queues that are deleted afterwards.
const QUEUES: [&str; 4] = ["video", "music", "3d", "webhook"];

/// Where the servers are.
pub struct Servers {
    /// PostgreSQL, with a database of its own.
    pub database: String,
    /// RabbitMQ.
    pub broker: String,
    /// Redis.
    pub cache: String,
    /// What queues and keys begin with.
    pub prefix: String,
}

/// The running roles.
pub struct Split {
    /// Takes the requests.
    pub api: Process,
    /// Does the work.
    pub worker: Process,
    scheduler: Process,
    /// Where the API listens.
    pub address: SocketAddr,
    /// Where the worker answers `/metrics`.
    pub worker_health: SocketAddr,
    /// A key for its API.
    pub key: String,
    data: Arc<TempDir>,
}

impl Split {
    /// Migrates, starts all roles, the worker with more permits than by default, and waits until each is ready.
    pub async fn start(cores: &Cores, servers: &Servers) -> anyhow::Result<Self> {
        let data = Arc::new(memory_folder()?);
        std::fs::create_dir(data.path().join("files"))?;
        std::fs::write(data.path().join("aigateway.toml"), "[worker]\nconcurrency = 256\nwebhook_concurrency = 512\n")?;
        let [api, worker, scheduler] = [free()?, free()?, free()?];
        let command = |role: &str| -> anyhow::Result<Command> {
            let mut command = cores.command(Place::All, built("aigateway")?);
            command.arg(role).arg("--data-dir").arg(data.path()).current_dir(data.path());
            // Settings of whoever measures must not count.
            command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command.env("AIG_DATABASE_URL", &servers.database).env("AIG_BROKER_URL", &servers.broker);
            command.env("AIG_CACHE_URL", &servers.cache).env("AIG_PREFIX", &servers.prefix);
            command.env("AIG_FILES_URL", format!("file://{}", data.path().join("files").display()));
            command.env("AIG_PUBLIC_URL", format!("http://{api}")).env("AIG_PRIVATE_TARGETS", "127.0.0.0/8");
            Ok(command)
        };
        let migrated = command("migrate")?.stdin(Stdio::null()).output()?;
        anyhow::ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        let key = std::fs::read_to_string(data.path().join("first-key"))?.trim().to_owned();
        let start = |role, variable, address: SocketAddr| {
            let mut command = command(role)?;
            command.env(variable, address.to_string());
            Process::start(command, tempfile::tempdir()?)
        };
        let split = Self {
            api: start("api", "AIG_LISTEN", api)?,
            worker: start("worker", "AIG_HEALTH_LISTEN", worker)?,
            scheduler: start("scheduler", "AIG_HEALTH_LISTEN", scheduler)?,
            address: api,
            worker_health: worker,
            key,
            data,
        };
        for (address, process) in [(api, &split.api), (worker, &split.worker), (scheduler, &split.scheduler)] {
            let ready = eventually("it is ready", START, || async { get(address, "/readyz", "").await.ok() }).await;
            ready.with_context(|| process.said())?;
        }
        Ok(split)
    }

    /// The folder with the files, which is to stay until all is measured.
    pub fn data(&self) -> Arc<TempDir> {
        Arc::clone(&self.data)
    }
}

/// Deletes what `servers` hold for the roles; they must have ended.
pub async fn clean(servers: &Servers) -> anyhow::Result<()> {
    let queues: Vec<String> = QUEUES.iter().map(|queue| format!("{}{queue}", servers.prefix)).collect();
    let deleted = tokio::time::timeout(Duration::from_secs(10), confirms::delete(&servers.broker, &queues)).await;
    deleted.context("RabbitMQ does not delete the queues")?
}

/// A folder in memory where there is one: where results would go to S3, no disk of this machine is to be measured.
fn memory_folder() -> anyhow::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}

/// A port that is free now; whoever takes it in between makes the start fail, which is said.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
