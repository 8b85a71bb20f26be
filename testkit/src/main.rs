//! The fakes as processes, for the bench and for tests in other languages. The URL is the first line of the output.

use std::time::Duration;

use aig_testkit::{JobsFake, JobsFaults, OpenaiFake};
use clap::{Parser, Subcommand};

/// Fakes of AI providers.
#[derive(Parser)]
struct Cli {
    /// Where to listen
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    listen: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Chat completions in OpenAI's dialect
    Openai,
    /// Jobs in the gateway's own dialect
    Aigateway {
        /// How long the work of a job takes
        #[arg(long, default_value_t = 0)]
        work_ms: u64,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Command::Openai => {
            let fake = OpenaiFake::listen(&cli.listen).await?;
            say(&fake.url());
            std::future::pending::<()>().await;
        }
        Command::Aigateway { work_ms } => {
            let faults = JobsFaults { work: Duration::from_millis(work_ms), ..JobsFaults::default() };
            let fake = JobsFake::listen(&cli.listen, faults).await?;
            say(&fake.url());
            std::future::pending::<()>().await;
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "whoever starts a fake reads its URL here")]
fn say(url: &str) {
    println!("{url}");
}
