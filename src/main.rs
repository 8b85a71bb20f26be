//! The binary `aigateway`: one subcommand per file.

mod all;
mod api;
mod catalog;
mod migrate;
mod process;
mod scheduler;
mod signals;
mod worker;

use std::process::ExitCode;

use aig_platform::config::{Flags, load};
use clap::{Parser, Subcommand};

/// One OpenAI-compatible API in front of every AI provider, and durable jobs for the AI work that takes minutes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
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
}

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(run(Cli::parse()).await)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = load(&cli.flags, &|name| std::env::var(name).ok())?;
    let _logs = aig_platform::telemetry::init_logs(&config)?;
    match cli.command.unwrap_or(Command::All) {
        Command::All => all::run(config).await,
        Command::Api => api::run(config).await,
        Command::Worker(flags) => worker::run(config, flags).await,
        Command::Scheduler => scheduler::run(config).await,
        Command::Migrate => migrate::run(config).await,
        Command::Catalog(args) => catalog::run(config, args).await,
    }
}
