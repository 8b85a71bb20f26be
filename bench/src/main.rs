//! Speed, measured: what the figures in the README come from. Started by `bench/run`, which builds the release binaries.
//!
//! One measurement is one file in `measure/` with one function `run` that gives back a [`table::Table`]. What they measure
//! is started by `serve/`, loaded by `load.rs`, and never listens anywhere but on 127.0.0.1. Everything has a deadline;
//! processes, folders and databases end with the value that holds them, also after Ctrl-C.

mod cpu;
mod http1;
mod load;
mod machine;
mod measure;
mod pin;
mod replay;
mod rounds;
mod serve;
mod stats;
mod table;

use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::machine::Machine;
use crate::pin::Cores;
use crate::table::say;

/// Measures the gateway beside its controls.
#[derive(Parser)]
#[command(bin_name = "bench/run")]
struct Cli {
    /// Everything when missing
    #[command(subcommand)]
    what: Option<What>,
    /// The length of a round
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How many rounds; the tables have their medians
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
    /// How many jobs
    #[arg(long, global = true, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    jobs: u64,
}

#[derive(PartialEq, Eq, Subcommand)]
enum What {
    /// Chat calls, whole and streamed, beside nginx
    Chat,
    /// Durable jobs on each database
    Jobs,
    /// The upstream of the chat calls, for this program itself
    #[command(hide = true)]
    Upstream {
        /// How many words it answers with
        words: u32,
        /// Whether it streams them
        #[arg(long)]
        stream: bool,
    },
}

/// What all measurements share.
struct Settings {
    cores: Cores,
    seconds: Duration,
    rounds: u64,
    jobs: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = run(&cli) => result,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("terminated"),
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    if let Some(What::Upstream { words, stream }) = cli.what {
        return replay::run(words, stream).await;
    }
    let seconds = Duration::from_secs(cli.seconds);
    let settings = Settings { cores: Cores::find(), seconds, rounds: cli.rounds, jobs: cli.jobs };
    let machine = Machine::find()?;
    say(&machine);
    let wanted = |what| cli.what.as_ref().is_none_or(|only| *only == what);
    if wanted(What::Chat) {
        say(&measure::chat::run(&settings).await?);
        say(&measure::stream::run(&settings).await?);
    }
    if wanted(What::Jobs) {
        say(&measure::jobs::run(&settings).await?);
    }
    say(&machine.stolen()?);
    Ok(())
}
