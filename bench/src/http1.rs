//! A connection to a server on this machine, and single questions over it.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a single question may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The address in `http://address/…`.
pub fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let rest = url.trim().strip_prefix("http://").with_context(|| format!("not a local URL: {url}"))?;
    rest.split('/').next().unwrap_or(rest).parse().with_context(|| format!("not a local URL: {url}"))
}

/// Opens a connection. The second half must be polled while the first is used.
pub async fn connect(
    address: SocketAddr,
) -> anyhow::Result<(SendRequest<Full<Bytes>>, Connection<TokioIo<TcpStream>, Full<Bytes>>)> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(handshake(TokioIo::new(socket)).await?)
}

/// Asks once with a key, on a connection of its own; anything but 200 is an error.
pub async fn get(address: SocketAddr, path: &str, key: &str) -> anyhow::Result<Bytes> {
    let request = Request::get(path).header("authorization", format!("Bearer {key}"));
    let (status, body) = ask(address, request, Bytes::new()).await.with_context(|| format!("GET {path}"))?;
    anyhow::ensure!(status == StatusCode::OK, "GET {path}: {status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// Sends JSON once, on a connection of its own.
pub async fn post(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Bytes)> {
    let request = Request::post(path).header("content-type", "application/json");
    ask(address, request, body.to_string().into()).await.with_context(|| format!("POST {path}"))
}

/// The same with a key.
pub async fn post_with(
    address: SocketAddr,
    path: &str,
    key: &str,
    body: &Value,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.header("authorization", format!("Bearer {key}"));
    ask(address, request, body.to_string().into()).await.with_context(|| format!("POST {path}"))
}

async fn ask(address: SocketAddr, request: http::request::Builder, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
    let request = request.header("host", address.to_string()).body(Full::new(body))?;
    let asked = async {
        let (mut sender, connection) = connect(address).await?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // A server that closes after its answer: what it said is here, or never comes.
            _ = connection => answer.await,
        }
    };
    timeout(PATIENCE, asked).await.context("no answer")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_urls() {
        assert_eq!(address("http://127.0.0.1:80/v1\n").unwrap().port(), 80);
        assert!(address("https://127.0.0.1:80").is_err() && address("http://localhost").is_err());
    }
}
