//! The receiver of webhooks, in this very process: answers 204 and counts the different `webhook-id` that came signed.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A running receiver; it ends when this is dropped.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    _tasks: JoinSet<()>,
}

/// What arrived since the last [`Receiver::forget`].
#[derive(Default)]
struct Heard {
    ids: HashSet<String>,
    first: Option<Instant>,
    last: Option<Instant>,
    unsigned: u64,
}

impl Receiver {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&heard)));
        Ok(Self { address, heard, _tasks: tasks })
    }

    /// Forgets what arrived.
    pub fn forget(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Heard::default();
    }

    /// Waits until this many have arrived; gives the time of the first and of the last.
    pub async fn wait(&self, count: u64, every: Duration, patience: Duration) -> anyhow::Result<(Instant, Instant)> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(times) = self.arrived(count)? {
                return Ok(times);
            }
            tokio::time::sleep(every).await;
        }
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).ids.len();
        anyhow::bail!("{heard} of {count} webhooks arrived in {} s", patience.as_secs())
    }

    fn arrived(&self, count: u64) -> anyhow::Result<Option<(Instant, Instant)>> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(heard.unsigned == 0, "{} webhooks came without a signature", heard.unsigned);
        Ok(heard.first.zip(heard.last).filter(|_| heard.ids.len() as u64 >= count))
    }
}

async fn accept(listener: TcpListener, heard: Arc<Mutex<Heard>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let _ = socket.set_nodelay(true);
                let heard = Arc::clone(&heard);
                connections.spawn(async move {
                    let service = service_fn(|request| answer(request, &heard));
                    // A connection that breaks is the sender's to open again.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    heard: &Mutex<Heard>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (id, signature) = (header("webhook-id"), header("webhook-signature"));
    let mut response = Response::new(Empty::new());
    let Ok(_) = request.into_body().collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    *response.status_mut() = StatusCode::NO_CONTENT;
    let now = Instant::now();
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    match id.filter(|_| signature.is_some_and(|signature| signature.starts_with("v1,"))) {
        Some(id) => {
            if heard.ids.insert(id) {
                heard.first.get_or_insert(now);
                heard.last = Some(now);
            }
        }
        None => heard.unsigned += 1,
    }
    Ok(response)
}
