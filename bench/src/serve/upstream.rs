//! The upstream of the chat calls (`replay.rs`), as a process beside the load generator.

use std::net::SocketAddr;

use super::Process;
use crate::http1::address;
use crate::pin::{Cores, Place};

/// A running upstream.
pub struct Upstream {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Starts one that answers with this many words.
pub async fn start(cores: &Cores, words: u32, stream: bool) -> anyhow::Result<Upstream> {
    let mut command = cores.command(Place::Load, std::env::current_exe()?);
    command.arg("upstream").arg(words.to_string()).args(stream.then_some("--stream"));
    let process = Process::start(command, tempfile::tempdir()?)?;
    let address = address(&process.line("out").await?)?;
    Ok(Upstream { process, address })
}
