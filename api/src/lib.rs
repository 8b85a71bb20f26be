//! The HTTP API: one door, [`run`].
//!
//! A request passes [`serve`] (connections), [`middleware::door`] (id, errors, panics, log), the table of [`router`], the
//! guard of [`middleware::auth`], and then one of [`routes`], one file per endpoint. Tests live beside what they test; those
//! that need a whole gateway are in `tests/it` of the workspace.

use std::sync::Arc;

use aig_platform::{App, Shutdown};
use hyper::service::service_fn;
use tokio::net::TcpListener;

use crate::middleware::body::BodyLimits;
use crate::middleware::door::Door;
use crate::middleware::key_cache::KeyCache;
use crate::serve::{ConnectionLimits, serve};
use crate::state::ApiState;

pub mod error;
pub mod middleware;
pub mod openapi;
pub mod range;
pub mod router;
pub mod routes;
pub mod serve;
pub mod state;

/// Serves the API on `listener` until `shutdown` begins, then returns when the last request has ended. Running requests are
/// finished; streams are ended by their own token.
///
/// # Errors
/// None today; the roles share one signature.
pub async fn run(app: App, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let server = &app.config.server;
    let limits = ConnectionLimits {
        max_connections: server.max_connections,
        max_per_address: server.max_connections_per_address,
        header_timeout: server.header_timeout,
        write_timeout: app.config.chat.slow_reader,
    };
    let body = |bytes| BodyLimits { bytes, total: server.body_timeout };
    let api = Arc::new(ApiState {
        base_url: format!("{}/v1", app.public_url.trim_end_matches('/')),
        chat_body: body(server.max_chat_body_bytes),
        job_body: body(server.max_job_body_bytes),
        keys: KeyCache::default(),
        shutdown: shutdown.clone(),
        app: app.clone(),
    });
    let door = Door::new(router::router(&api), Arc::clone(&app.clock));
    let service = service_fn(move |request| door.clone().answer(request));
    serve(listener, service, limits, &app.tracker, shutdown.stopping()).await;
    Ok(())
}
