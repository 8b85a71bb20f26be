//! The pooled client for URLs that the operator configured. It tells whether a request that failed was sent.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// A body as it comes. Dropping it aborts the exchange.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// How the pool behaves.
#[derive(Clone, Copy, Debug)]
pub struct TrustedConfig {
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How many connections wait for work, per host.
    pub max_idle_per_host: usize,
    /// How long they wait.
    pub idle_timeout: Duration,
}

impl Default for TrustedConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), max_idle_per_host: 256, idle_timeout: Duration::from_mins(1) }
    }
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection was made: the other side provably did not get the request, and a retry is free.
    #[error("no connection: {0}")]
    NotSent(String),
    /// The connection broke, or the answer made no sense: the other side may have got the request.
    #[error("the connection broke: {0}")]
    MaybeSent(String),
    /// No answer in time: the other side may have got the request.
    #[error("no answer in time")]
    Timeout,
}

/// Why a body ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came for this long.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// It took longer than this in all.
    #[error("it took longer than {0:?}")]
    Total(Duration),
    /// It is larger than this many bytes.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
}

/// The pooled client. Cheap to clone.
#[derive(Clone)]
pub struct TrustedClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl TrustedClient {
    /// A client with an empty pool.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: &TrustedConfig) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.max_idle_per_host)
            .build(connector);
        Ok(Self { client })
    }

    /// Sends `request` and waits for the head of the answer, at most `head_timeout`. Dropping the future aborts it.
    ///
    /// # Errors
    /// Whether the request may have arrived.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        head_timeout: Duration,
    ) -> Result<Response<BodyStream>, SendError> {
        let sent = self.client.request(request.map(Full::new));
        match tokio::time::timeout(head_timeout, sent).await {
            Err(_) => Err(SendError::Timeout),
            Ok(Ok(response)) => Ok(response.map(|body| {
                let chunks = body.into_data_stream();
                Box::pin(chunks.map(|chunk| chunk.map_err(|error| BodyError::Broken(causes(&error))))) as BodyStream
            })),
            Ok(Err(error)) if error.is_connect() => Err(SendError::NotSent(causes(&error))),
            Ok(Err(error)) => Err(SendError::MaybeSent(causes(&error))),
        }
    }
}

/// An error with its causes, for the operator.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The same body, with an error when nothing comes for `idle`.
pub fn with_idle_timeout(body: BodyStream, idle: Duration) -> BodyStream {
    Box::pin(stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(idle, body.next()).await {
            Err(_) => Some((Err(BodyError::Idle(idle)), None)),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
        }
    }))
}

/// Reads a whole body of at most `max` bytes within `total`.
///
/// # Errors
/// Which bound was hit, or that the connection broke.
pub async fn read_bounded(mut body: BodyStream, max: usize, total: Duration) -> Result<Bytes, BodyError> {
    let read = async {
        let mut whole = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            if whole.len() + chunk.len() > max {
                return Err(BodyError::TooLarge(max));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(total, read).await.unwrap_or(Err(BodyError::Total(total)))
}

#[cfg(test)]
mod tests;
