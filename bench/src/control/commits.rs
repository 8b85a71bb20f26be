//! PostgreSQL: how many transactions of one inserted row it commits per second, by `pgbench`.

use std::time::Duration;

use anyhow::Context as _;

use crate::pin::{Cores, Place};
use crate::serve::Process;
use crate::serve::postgres::Database;

/// How many connections commit at once.
pub const CLIENTS: &str = "8";
const SECONDS: u64 = 3;

/// Commits per second; `None` when pgbench is missing.
pub async fn per_second(cores: &Cores, database: &Database) -> anyhow::Result<Option<f64>> {
    let folder = tempfile::tempdir()?;
    database.run("CREATE TABLE bench_rows (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body TEXT NOT NULL)")?;
    let script = folder.path().join("insert.sql");
    std::fs::write(&script, "INSERT INTO bench_rows (body) VALUES (repeat('x', 500));\n")?;
    if std::process::Command::new("pgbench").arg("--version").output().is_err() {
        return Ok(None);
    }
    let mut command = cores.command(Place::All, "pgbench");
    command.args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", "1", "-T", &SECONDS.to_string()]);
    command.arg("-f").arg(script).arg(database.url()?);
    let mut process = Process::start(command, folder)?;
    process.ended(Duration::from_secs(SECONDS + 20)).await?;
    let said = std::fs::read_to_string(process.path("out"))?;
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    Ok(Some(rate.with_context(|| format!("pgbench said: {}", process.said()))?))
}
