//! The binary `aigateway`: one subcommand per file.

mod all;
mod migrate;
mod signals;

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
    /// Bring the database's schema up to date, and make the first account if there is none
    Migrate,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = load(&cli.flags, &|name| std::env::var(name).ok())?;
    let _logs = aig_platform::telemetry::init_logs(&config)?;
    match cli.command.unwrap_or(Command::All) {
        Command::All => all::run(config).await,
        Command::Migrate => migrate::run(config).await,
    }
}

#[expect(clippy::print_stderr, reason = "what went wrong at start is said to whoever started it")]
fn say_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
