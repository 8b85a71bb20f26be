//! The binary `aigateway`: one subcommand per file.

mod all;
mod api;
mod beside;
mod catalog;
mod command;
mod doctor;
mod migrate;
mod process;
mod scheduler;
mod signals;
mod worker;

use std::process::ExitCode;

use aig_platform::config::{Flags, load};
use clap::Parser;

use crate::command::Command;

/// One OpenAI-compatible API in front of every AI provider, and durable jobs for the AI work that takes minutes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(run(Cli::parse()).await)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = load(&cli.flags, &|name| std::env::var(name).ok())?;
    let _logs = aig_platform::telemetry::init_logs(&config)?;
    cli.command.unwrap_or(Command::All).run(config).await
}
