//! `aigateway` or `aigateway all`: everything in one process, with nothing installed and nothing configured.

use std::path::Path;
use std::sync::Arc;

use aig_domain::Clock;
use aig_domain::clock::SystemClock;
use aig_platform::datadir::{DataDir, DatabaseLock};
use aig_platform::lifecycle::{Role, run_roles};
use aig_platform::{App, Config, Shutdown, first_account};
use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::signals;

/// Runs until it is told to stop.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let folder = DataDir::open(&config.data_dir)?;
    let _lock = config.embedded_database().map(|database| DatabaseLock::take(&database)).transpose()?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?.to_string();
    let (shutdown, tracker) = (Shutdown::new(), TaskTracker::new());
    signals::watch(shutdown.clone(), &TaskTracker::new())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    if config.private_targets.is_none() && config.listen.ip().is_loopback() {
        tracing::info!("webhooks may go to this machine, since only this machine is served (AIG_PRIVATE_TARGETS)");
    }
    let app = App::build(config, &folder, &address, Arc::clone(&clock), tracker.clone()).await?;
    app.prepare().await?;
    first_account::ensure(&app.store, &folder, &app.ring, &*clock).await?;
    folder.write("url", &format!("http://{address}\n"))?;
    greet(&app.public_url, &folder.join("first-key"));
    tracker.spawn(app.metrics.clone().upkeep(shutdown.clone()));
    let roles: Vec<Role> = vec![
        ("api", Box::pin(aig_api::run(app.clone(), listener, shutdown.clone()))),
        ("worker", Box::pin(aig_worker::run(app.clone(), shutdown.clone()))),
        ("scheduler", Box::pin(aig_scheduler::run(app.clone(), shutdown.clone()))),
    ];
    let ended = run_roles(roles, &shutdown, &tracker).await;
    app.close().await;
    folder.remove("url");
    tracing::info!("stopped");
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
