//! A receiver of webhooks that remembers everything, and verifies signatures with code of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, Request};
use sha2::Sha256;

use crate::eventually;
use crate::server::{Answer, Cut, Server, answer};

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The path it was sent to.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its exact bytes.
    pub body: Bytes,
    /// When.
    pub at: Instant,
}

/// How one request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With 503 and the wish to come again after so many seconds.
    RetryAfter(u64),
    /// With a redirect to this URL.
    Redirect(String),
    /// By hanging up.
    Cut,
    /// After this long, with 200.
    Late(Duration),
}

#[derive(Default)]
struct Inner {
    deliveries: Vec<Delivery>,
    scripts: HashMap<String, VecDeque<Reply>>,
}

/// The receiver. Answers 200 unless a script says otherwise.
pub struct WebhookReceiver {
    server: Server,
    inner: Arc<Mutex<Inner>>,
}

impl WebhookReceiver {
    /// Starts the receiver on a free port of this machine.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> anyhow::Result<Self> {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let shared = Arc::clone(&inner);
        let server = Server::start("127.0.0.1:0", move |request| receive(Arc::clone(&shared), request)).await?;
        Ok(Self { server, inner })
    }

    /// The URL of `path`, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }

    /// Answers the next requests to `path` in this way, one after the other.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.inner).scripts.entry(path.to_owned()).or_default().extend(replies);
    }

    /// What arrived so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.inner).deliveries.clone()
    }

    /// What arrived at `path` so far.
    pub fn at(&self, path: &str) -> Vec<Delivery> {
        lock(&self.inner).deliveries.iter().filter(|delivery| delivery.path == path).cloned().collect()
    }

    /// Waits until `count` requests arrived at `path`.
    ///
    /// # Errors
    /// When they did not, within `deadline`.
    pub async fn wait_for(&self, path: &str, count: usize, deadline: Duration) -> anyhow::Result<Vec<Delivery>> {
        eventually(&format!("{count} webhooks at {path}"), deadline, || async {
            let found = self.at(path);
            (found.len() >= count).then_some(found)
        })
        .await
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn receive(inner: Arc<Mutex<Inner>>, request: Request<Bytes>) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let reply = {
        let mut inner = lock(&inner);
        inner.deliveries.push(Delivery { path: path.clone(), headers: head.headers, body, at: Instant::now() });
        inner.scripts.get_mut(&path).and_then(VecDeque::pop_front)
    };
    match reply {
        None => Ok(answer(200, "text/plain", "ok")),
        Some(Reply::Status(status)) => Ok(answer(status, "text/plain", "as told")),
        Some(Reply::RetryAfter(seconds)) => {
            let mut response = answer(503, "text/plain", "later");
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
            Ok(response)
        }
        Some(Reply::Redirect(to)) => {
            let mut response = answer(302, "text/plain", "elsewhere");
            response.headers_mut().insert(http::header::LOCATION, to.parse().map_err(|_| Cut)?);
            Ok(response)
        }
        Some(Reply::Cut) => Err(Cut),
        Some(Reply::Late(time)) => {
            tokio::time::sleep(time).await;
            Ok(answer(200, "text/plain", "late"))
        }
    }
}

impl Delivery {
    /// A header's text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Whether all three families of signatures are right for `secret`, the text that begins with `whsec_`.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        self.has_gateway_signature(secret) && self.has_aig_signature(secret) && self.has_standard_signature(secret)
    }

    /// `X-Gateway-Signature: t=…,v1=…`.
    pub fn has_gateway_signature(&self, secret: &str) -> bool {
        let Some((t, v1)) = self.header("x-gateway-signature").split_once(",v1=") else { return false };
        let Some(t) = t.strip_prefix("t=") else { return false };
        v1 == hex::encode(self.mac(secret.as_bytes(), &format!("{t}.")))
    }

    /// `aig-timestamp` and `aig-signature`.
    pub fn has_aig_signature(&self, secret: &str) -> bool {
        let t = self.header("aig-timestamp");
        !t.is_empty() && self.header("aig-signature") == hex::encode(self.mac(secret.as_bytes(), &format!("{t}.")))
    }

    /// The headers of Standard Webhooks, which may carry several signatures.
    pub fn has_standard_signature(&self, secret: &str) -> bool {
        let Some(Ok(key)) = secret.strip_prefix("whsec_").map(|key| STANDARD.decode(key)) else { return false };
        let prefix = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let expected = format!("v1,{}", STANDARD.encode(self.mac(&key, &prefix)));
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }

    fn mac(&self, key: &[u8], prefix: &str) -> Vec<u8> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
        mac.update(prefix.as_bytes());
        mac.update(&self.body);
        mac.finalize().into_bytes().to_vec()
    }
}
