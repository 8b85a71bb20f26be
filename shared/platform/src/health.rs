//! `/healthz`, `/readyz` and `/metrics` of the roles that serve no API.
//!
//! Few callers, all of them the operator's: connections are bounded, a request may have no body, each answer closes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::readiness::Readiness;
use crate::{App, Shutdown};

const MAX_CONNECTIONS: usize = 64;
/// How long one connection may take in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers on `listener` until the shutdown begins.
///
/// # Errors
/// None today; the roles share one signature.
pub async fn run(app: App, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let (places, connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = shutdown.stopping() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: wait until some are free.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (app, shutdown) = (app.clone(), shutdown.clone());
        connections.spawn(async move {
            // A caller that is slow or leaves is no concern of ours.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection(stream, app, shutdown)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, app: App, shutdown: Shutdown) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let (app, shutdown) = (app.clone(), shutdown.clone());
        async move { Ok::<_, Infallible>(answer(&request, &app, &shutdown).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, app: &App, shutdown: &Shutdown) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET, "/readyz") => {
            let readiness = Readiness::of(app, shutdown).await;
            let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, "application/json", serde_json::to_string(&readiness).unwrap_or_default())
        }
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", app.metrics.render())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "Here are /healthz, /readyz and /metrics.\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
