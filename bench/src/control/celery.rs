//! Celery: how many tasks that do nothing it executes per second on the same RabbitMQ (`bench/celery_noop.py`).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::pin::{Cores, Place};
use crate::serve::Process;

/// How many tasks.
pub const TASKS: u64 = 5000;
const PATIENCE: Duration = Duration::from_mins(3);
/// By which variable `bench/run` says where the Python with Celery is.
const PYTHON: &str = "AIG_BENCH_CELERY_PYTHON";

/// How many tasks per second.
pub struct Rates {
    /// Executed, when all of them wait.
    pub executed: f64,
    /// Enqueued and executed.
    pub in_all: f64,
}

/// Measures it; `None` when there is no Celery.
pub async fn per_second(cores: &Cores, amqp: &str, queue: &str) -> anyhow::Result<Option<Rates>> {
    let Some(python) = std::env::var_os(PYTHON).filter(|python| !python.is_empty()) else { return Ok(None) };
    let script = PathBuf::from("bench/celery_noop.py").canonicalize().context("bench/celery_noop.py is missing")?;
    let folder = tempfile::tempdir()?;
    let mut command = cores.command(Place::All, python);
    command.arg(script).args([amqp, queue, &TASKS.to_string()]).current_dir(folder.path());
    let mut process = Process::start(command, folder)?;
    process.ended(PATIENCE).await?;
    let said = std::fs::read_to_string(process.path("out"))?;
    let rates = said.lines().find_map(|line| {
        let (executed, in_all) = line.split_once(' ')?;
        Some(Rates { executed: executed.parse().ok()?, in_all: in_all.parse().ok()? })
    });
    Ok(Some(rates.with_context(|| format!("celery said: {}", process.said()))?))
}
