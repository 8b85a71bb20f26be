//! `aigateway` or `aigateway all`: everything in one process, with nothing installed and nothing configured.

use std::path::Path;

use aig_platform::datadir::{DataDir, DatabaseLock};
use aig_platform::lifecycle::Role;
use aig_platform::{Config, first_account};

use crate::process::{Process, listen};

/// Runs until it is told to stop.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let folder = DataDir::open(&config.data_dir)?;
    let _lock = config.embedded_database().map(|database| DatabaseLock::take(&database)).transpose()?;
    let listener = listen(config.listen).await?;
    let address = listener.local_addr()?.to_string();
    if config.private_targets.is_none() && config.listen.ip().is_loopback() {
        tracing::info!("webhooks may go to this machine, since only this machine is served (AIG_PRIVATE_TARGETS)");
    }
    let process = Process::build(config, &folder, &address).await?;
    let (app, shutdown) = (process.app.clone(), process.shutdown.clone());
    app.prepare().await?;
    first_account::ensure(&app.store, &folder, &app.ring, &*app.clock).await?;
    folder.write("url", &format!("http://{address}\n"))?;
    greet(&app.public_url, &folder.join("first-key"));
    let roles: Vec<Role> = vec![
        ("api", Box::pin(aig_api::run(app.clone(), listener, shutdown.clone()))),
        ("worker", Box::pin(aig_worker::run(app.clone(), shutdown.clone()))),
        ("scheduler", Box::pin(aig_scheduler::run(app, shutdown))),
    ];
    let ended = process.run(roles).await;
    folder.remove("url");
    ended
}

/// Says where the gateway is, with two calls that work when pasted. They read the key from its file, so that it lands in
/// no log and no shell history.
#[expect(clippy::print_stdout, reason = "this is what whoever started the gateway wants to see")]
fn greet(url: &str, key: &Path) {
    let key = key.display();
    println!(
        "AIgateway is ready at {url} (OpenAI base URL: {url}/v1). Try:\n\n\
         curl {url}/v1/chat/completions -H \"Authorization: Bearer $(cat '{key}')\" \
         -H 'Content-Type: application/json' \
         -d '{{\"model\":\"sandbox/chat\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'\n\n\
         curl {url}/v1/videos/generations -H \"Authorization: Bearer $(cat '{key}')\" \
         -H 'Content-Type: application/json' \
         -d '{{\"model\":\"sandbox/video\",\"prompt\":\"a lighthouse at dusk\",\"duration\":4}}'\n"
    );
}
