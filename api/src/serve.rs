//! The accept loop: TCP connections in, HTTP/1.1 requests to a service, every wait and size bounded.
//!
//! It is our own because axum's sets no timer, so that a client sending one byte a minute would hold its connection for
//! ever. At the connection limit it stops accepting and the kernel's backlog queues; errors of `accept` never end it. When
//! it is told to stop it accepts nothing more, lets requests under way finish, and returns when the last connection is
//! closed. Answers that hyper gives before there is a request (400, 431) carry no request id. Tests: `serve/tests.rs`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::linger::Linger;

mod linger;

/// The most headers of a request.
const MAX_HEADERS: usize = 100;
/// The largest header block, request line included, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// hyper's own buffer, which must hold a header block that is just too large, so that it can say so.
const BUFFER_BYTES: usize = 64 * 1024;

/// What one client, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open connections in all.
    pub max_connections: u32,
    /// Open connections from one address; `None` for no limit, since a reverse proxy is one address.
    pub max_per_address: Option<u32>,
    /// How long a request's header block may take, and how long a connection may idle between two requests.
    pub header_timeout: Duration,
    /// How long a client may read nothing of its answer.
    pub write_timeout: Duration,
}

/// Who is at the other end of the connection; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Accepts connections until `stopping` resolves, then returns once every connection has ended.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: ConnectionLimits,
    tracker: &TaskTracker,
    stopping: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections as usize));
    let addresses = Addresses::default();
    let closing = CancellationToken::new();
    let mut stopping = std::pin::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopping => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { break };
        let Some(place) = addresses.enter(peer.ip(), limits.max_per_address) else {
            metrics::counter!("aig_http_connections_refused_total").increment(1);
            continue;
        };
        let (service, closing) = (service.clone(), closing.clone());
        tracker.spawn(async move {
            metrics::gauge!("aig_http_connections").increment(1.0);
            connection(stream, Peer(peer), service, limits, closing).await;
            metrics::gauge!("aig_http_connections").decrement(1.0);
            drop((slot, place));
        });
    }
    drop(listener);
    closing.cancel();
    // Every connection holds a slot, so all of them are free again when the last one has ended.
    drop(slots.acquire_many(limits.max_connections).await);
}

/// The next connection, once there is a slot for it. Outlives every error of `accept`; `None` only if the slots are closed.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, slot)),
            Err(error) => {
                if let Some(pause) = pause_after(&error) {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// How long to wait after `accept` failed: not at all when only that one connection is gone, else until file descriptors
/// or memory may be free again.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    let one_client = matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted);
    (!one_client).then_some(Duration::from_millis(100))
}

/// Serves one connection to its end.
async fn connection<S>(stream: TcpStream, peer: Peer, service: S, limits: ConnectionLimits, closing: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send,
{
    // Without this a small chunk of a stream waits for the acknowledgement of the one before. Failing costs only speed.
    drop(stream.set_nodelay(true));
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Linger::new(stream, limits.write_timeout)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// How many connections each address holds.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, u32>>>);

impl Addresses {
    /// A place for one more connection from `ip`, given back when it is dropped; `None` when `max` are open.
    fn enter(&self, ip: IpAddr, max: Option<u32>) -> Option<Place> {
        let Some(max) = max else { return Some(Place(None)) };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ip).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), ip))))
    }
}

/// One connection's place at its address.
struct Place(Option<(Addresses, IpAddr)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((addresses, ip)) = self.0.take() else { return };
        let mut open = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(ip) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests;
