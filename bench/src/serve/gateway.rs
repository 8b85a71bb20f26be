//! The gateway as its users start it: everything in one process, on default settings but those given.

use std::net::SocketAddr;

use super::{Process, built};
use crate::http1::address;
use crate::pin::{Cores, Place};

/// A running gateway.
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// A key for its API.
    pub key: String,
}

/// Starts one with this `aigateway.toml` and these environment variables.
pub async fn start(cores: &Cores, place: Place, toml: &str, vars: &[(&str, &str)]) -> anyhow::Result<Gateway> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("aigateway.toml"), toml)?;
    let mut command = cores.command(place, built("aigateway")?);
    command.arg("--data-dir").arg(folder.path()).args(["--listen", "127.0.0.1:0"]).current_dir(folder.path());
    // Settings of whoever measures must not count.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(vars.iter().copied());
    let process = Process::start(command, folder)?;
    let address = address(&process.line("url").await?)?;
    // Written before the URL.
    let key = std::fs::read_to_string(process.path("first-key"))?.trim().to_owned();
    Ok(Gateway { process, address, key })
}
