//! Speed, measured: what the figures in the README come from. Started by `bench/run`, which builds the release binaries.
//!
//! One measurement is one file in `measure/` with one function `run` that gives back a [`table::Table`]. What they measure
//! is started by `serve/`, loaded by `load.rs`, and never listens anywhere but on 127.0.0.1. Everything has a deadline;
//! processes, folders and databases end with the value that holds them, also after Ctrl-C.

mod control;
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
    /// How many jobs; 5000 when missing, 10000 for `distributed`
    #[arg(long, global = true, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    jobs: Option<u64>,
}

#[derive(PartialEq, Eq, Subcommand)]
enum What {
    /// Chat calls, whole and streamed, beside nginx
    Chat,
    /// Chat calls with prices, rate limits and caps, beside nginx
    Money,
    /// Durable jobs on each database
    Jobs,
    /// Jobs and webhooks on PostgreSQL, RabbitMQ and Redis, a process for each role, beside RabbitMQ, PostgreSQL and Celery
    Distributed,
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
    /// The jobs of the distributed composition.
    distributed: u64,
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
    let settings = Settings {
        cores: Cores::find(),
        seconds,
        rounds: cli.rounds,
        jobs: cli.jobs.unwrap_or(5000),
        distributed: cli.jobs.unwrap_or(10_000),
    };
    let machine = Machine::find()?;
    say(&machine);
    let wanted = |what| cli.what.as_ref().is_none_or(|only| *only == what);
    if wanted(What::Chat) {
        say(&measure::chat::run(&settings).await?);
        say(&measure::stream::run(&settings).await?);
    }
    if wanted(What::Money) {
        say(&measure::money::run(&settings).await?);
    }
    if wanted(What::Jobs) {
        say(&measure::jobs::run(&settings).await?);
    }
    if wanted(What::Distributed) {
        say(&measure::distributed::run(&settings).await?);
    }
    say(&machine.stolen()?);
    Ok(())
}
