//! `aigateway catalog import FILE`: list prices and token limits from LiteLLM's `model_prices_and_context_window.json`.
//!
//! Shows what changes, and refuses what cannot be meant. It may run beside a server.

mod litellm;
mod report;

use std::path::PathBuf;

use aig_domain::price::Changes;
use aig_platform::Config;
use aig_store::Store;
use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::beside::with_store;

/// What to do with the imported prices.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Import the prices of LiteLLM's model_prices_and_context_window.json; shows what changes
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Take prices that cannot be meant, too
        #[arg(long)]
        force: bool,
        /// Change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Imports, says what changed, and ends.
pub(crate) async fn run(config: Config, args: Args) -> anyhow::Result<()> {
    let Action::Import { file, force, dry_run } = args.action;
    let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let read = litellm::read(&text).with_context(|| format!("{} is no price list of LiteLLM", file.display()))?;
    drop(text);
    let source = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    with_store(&config, async |store, _| import(store, &read, &source, force, dry_run).await).await
}

async fn import(store: &Store, read: &litellm::Read, source: &str, force: bool, dry_run: bool) -> anyhow::Result<()> {
    let changes = Changes::between(&store.catalog().await?, &read.catalog);
    say(&report::text(&changes, read));
    let implausible = changes.implausible().count();
    if implausible > 0 && !force {
        bail!(
            "{implausible} of these prices cannot be meant, so nothing was imported. If they are right, say --force; to set a \
             price yourself, write it into aigateway.toml"
        );
    }
    if dry_run {
        say("Nothing was imported (--dry-run).\n");
        return Ok(());
    }
    store.import_prices(&read.catalog, source).await?;
    say("Imported. A running server uses these prices within a minute.\n");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn say(text: &str) {
    print!("{text}");
}
