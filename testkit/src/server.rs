//! A small HTTP server that can also do what no proper server does: hang up instead of answering.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A body; an error in it cuts the connection.
pub type Body = BoxBody<Bytes, Cut>;

/// Hang up.
#[derive(Debug)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the fake hangs up, as it was told to")
    }
}

impl std::error::Error for Cut {}

/// What a handler gives back: an answer, or no answer at all.
pub type Answer = Result<Response<Body>, Cut>;

/// A running server; it ends when this is dropped.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves `handler` on `listen`, such as `127.0.0.1:0`.
    ///
    /// # Errors
    /// When the address is taken.
    #[expect(clippy::disallowed_methods, reason = "a fake ends with its handle; nothing waits for it")]
    pub async fn start<H, F>(listen: &str, handler: H) -> anyhow::Result<Self>
    where
        H: Fn(Request<Bytes>) -> F + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                // A socket without nodelay only makes tests slower.
                let _ = socket.set_nodelay(true);
                let handler = Arc::clone(&handler);
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let handler = Arc::clone(&handler);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
                        handler(Request::from_parts(head, body)).await
                    }
                });
                connections.spawn(async move {
                    // An error here is a client that left, or a fake that hung up.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, task })
    }

    /// `http://address:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An answer with a body of this type.
pub fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed();
    with_body(status, content_type, body)
}

/// An answer whose body comes piece by piece.
pub fn streamed(
    status: u16,
    content_type: &str,
    pieces: impl Stream<Item = Result<Bytes, Cut>> + Send + Sync + 'static,
) -> Response<Body> {
    with_body(status, content_type, BodyExt::boxed(StreamBody::new(pieces.map(|piece| piece.map(Frame::data)))))
}

fn with_body(status: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    }
    response
}
