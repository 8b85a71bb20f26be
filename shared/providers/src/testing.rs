//! A server for tests of the adapters: it reads one request per connection and answers with the bytes it is told to.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that answers every request with the same bytes and then closes.
pub(crate) struct Canned {
    pub(crate) url: String,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    serve: tokio::task::JoinHandle<()>,
}

impl Canned {
    /// Answers with `status` and `body`.
    pub(crate) async fn json(status: &str, headers: &str, body: &str) -> Self {
        Self::bytes(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())).await
    }

    /// Answers with exactly these bytes.
    #[expect(clippy::disallowed_methods, reason = "a test's server ends with its test")]
    pub(crate) async fn bytes(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, answer) = (Arc::new(Mutex::new(Vec::new())), answer.into());
        let seen = Arc::clone(&requests);
        let serve = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let request = read_request(&mut socket).await;
                seen.lock().unwrap().push(request);
                // The client may have gone.
                let _ = socket.write_all(&answer).await;
            }
        });
        Self { url, requests, serve }
    }

    pub(crate) fn last(&self) -> String {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

async fn read_request(socket: &mut tokio::net::TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = socket.read(&mut buffer).await.unwrap_or(0);
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let length =
            text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        if read == 0 || body.is_some_and(|body| body >= length.unwrap_or(0)) {
            return text;
        }
    }
}
