//! The HTTP API: one door, [`run`].
//!
//! A request passes [`serve()`] (connections), [`middleware::door`] (id, errors, panics, log), the table of [`router`], the
//! guard of [`middleware::auth`], and then one of [`routes`], one file per endpoint. Tests live beside what they test; those
//! that need a whole gateway are in `tests/it` of the workspace.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aig_cache::Signal;
use aig_platform::prices::Prices;
use aig_platform::{App, Shutdown};
use aig_tasks::{ProcessLease, Role};
use anyhow::Context as _;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;

use crate::job_watch::JobWatch;
use crate::middleware::body::BodyLimits;
use crate::middleware::door::Door;
use crate::middleware::key_cache::KeyCache;
use crate::serve::{ConnectionLimits, serve};
use crate::state::ApiState;

pub mod error;
pub mod job_watch;
pub mod middleware;
pub mod openapi;
pub mod range;
pub mod router;
pub mod routes;
pub mod serve;
pub mod state;

/// How often the api processes are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How long the end of the process's lease may take.
const LEASE_END: Duration = Duration::from_secs(2);

/// Forgets cached keys that were changed, here or by another process, until the shutdown begins.
async fn forget_changed_keys(api: Arc<ApiState>) {
    let mut signals = api.app.bus.listen();
    loop {
        let signal = tokio::select! {
            () = api.shutdown.stopping() => return,
            signal = signals.recv() => signal,
        };
        match signal {
            Ok(Signal::KeyChanged { public_id }) => api.keys.forget(&public_id),
            Ok(Signal::Missed) | Err(RecvError::Lagged(_)) => api.keys.forget_all(),
            Ok(Signal::JobCancelled { .. }) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Serves the API on `listener` until `shutdown` begins, then returns when the last request has ended. Running requests are
/// finished; streams are ended by their own token.
///
/// # Errors
/// When the embedded database fails at the start.
pub async fn run(app: App, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let server = &app.config.server;
    let limits = ConnectionLimits {
        max_connections: server.max_connections,
        max_per_address: server.max_connections_per_address,
        header_timeout: server.header_timeout,
        write_timeout: app.config.chat.slow_reader,
    };
    let body = |bytes| BodyLimits { bytes, total: server.body_timeout };
    let times = app.config.tasks.lease_times();
    let lease = ProcessLease::begin(Role::Api, &app.store, &app.config.store(), Arc::clone(&app.clock), times)
        .await
        .context("the API could not register itself")?;
    let api = Arc::new(ApiState {
        process: lease.clone(),
        base_url: format!("{}/v1", app.public_url.trim_end_matches('/')),
        chat_body: body(server.max_chat_body_bytes),
        job_body: body(server.max_job_body_bytes),
        jobs: JobWatch::default(),
        keys: KeyCache::default(),
        shutdown: shutdown.clone(),
        app: app.clone(),
    });
    app.tracker.spawn(count_processes(app.clone(), shutdown.clone()));
    app.tracker.spawn(Prices::load(app.clone()).await.keep(shutdown.clone()));
    app.tracker.spawn(api.jobs.clone().run(app.store.clone(), shutdown.clone()));
    app.tracker.spawn(forget_changed_keys(Arc::clone(&api)));
    let door = Door::new(router::router(&api), Arc::clone(&app.clock));
    let service = service_fn(move |request| door.clone().answer(request));
    serve(listener, service, limits, &app.tracker, shutdown.stopping()).await;
    if !matches!(tokio::time::timeout(LEASE_END, lease.end(&app.store)).await, Ok(Ok(()))) {
        tracing::warn!("the API's lease was not ended; it runs out by itself");
    }
    Ok(())
}

/// Keeps count of the api processes, which share the rate limits among them while Redis is away.
async fn count_processes(app: App, shutdown: Shutdown) {
    loop {
        match app.store.live_processes(Role::Api).await {
            Ok(live) => app.live_apis.store(live.max(1), Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "the api processes cannot be counted; the last count stays"),
        }
        tokio::select! {
            () = shutdown.stopping() => return,
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
    }
}
