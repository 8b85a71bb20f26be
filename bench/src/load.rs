//! A closed loop: so many connections, each sends its next request when the last one is answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http1::connect;

/// How many connections every load has.
pub const CONNECTIONS: u64 = 64;
/// How long requests that are under way may take when a load ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Before a connection that broke is opened again.
const PAUSE: Duration = Duration::from_millis(10);
/// How a stream ends.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// What is sent again and again, and what answer is a good one.
#[derive(Clone)]
pub struct Plan {
    address: SocketAddr,
    path: &'static str,
    headers: HeaderMap,
    body: Bytes,
    expected: StatusCode,
    /// Whether the answer is a stream of events that must be whole.
    stream: bool,
}

impl Plan {
    /// POSTs of JSON that are answered with `expected`.
    pub fn post(
        address: SocketAddr,
        path: &'static str,
        key: &str,
        body: &serde_json::Value,
        expected: StatusCode,
    ) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, address.to_string().parse()?);
        headers.insert(header::AUTHORIZATION, format!("Bearer {key}").parse()?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { address, path, headers, body: body.to_string().into(), expected, stream: body["stream"] == true })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(self.path);
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Good answers.
    pub calls: u64,
    /// Events in them.
    pub events: u64,
    /// Anything else.
    pub errors: u64,
}

struct Shared {
    plan: Plan,
    left: AtomicI64,
    stop: AtomicBool,
    calls: AtomicU64,
    events: AtomicU64,
    errors: AtomicU64,
    complaint: OnceLock<String>,
}

/// A load that is running; it ends when this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    connections: JoinSet<()>,
}

impl Load {
    /// Starts a load that goes on until it is stopped.
    pub fn endless(plan: Plan) -> Self {
        Self::start(plan, i64::MAX)
    }

    /// Starts a load of this many requests.
    pub fn of(plan: Plan, requests: u64) -> Self {
        Self::start(plan, i64::try_from(requests).unwrap_or(i64::MAX))
    }

    fn start(plan: Plan, left: i64) -> Self {
        let shared = Arc::new(Shared {
            plan,
            left: left.into(),
            stop: false.into(),
            calls: 0.into(),
            events: 0.into(),
            errors: 0.into(),
            complaint: OnceLock::new(),
        });
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                while let Err(error) = connection(&shared).await {
                    shared.failed(format!("{error:#}"));
                    sleep(PAUSE).await;
                }
            });
        }
        Self { shared, connections }
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Seen { calls: load(&self.shared.calls), events: load(&self.shared.events), errors: load(&self.shared.errors) }
    }

    /// The first thing that went wrong.
    pub fn complaint(&self) -> Option<&str> {
        self.shared.complaint.get().map(String::as_str)
    }

    /// Waits until all requests are answered.
    pub async fn done(&mut self, patience: Duration) -> anyhow::Result<()> {
        let all = async { while self.connections.join_next().await.is_some() {} };
        timeout(patience, all).await.context("the load does not end")
    }

    /// Ends it after the requests that are under way.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.done(LAST_ANSWERS).await
    }
}

impl Shared {
    /// Whether there is one more to send.
    fn take(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    fn failed(&self, complaint: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.complaint.get_or_init(|| complaint);
    }
}

/// Sends on one connection until there is nothing more to send.
async fn connection(shared: &Shared) -> anyhow::Result<()> {
    let (mut sender, connection) = connect(shared.plan.address).await?;
    let calls = async {
        while shared.take() {
            call(shared, &mut sender).await?;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        ended = calls => ended,
        ended = connection => {
            ended?;
            anyhow::bail!("the server closed the connection")
        }
    }
}

async fn call(shared: &Shared, sender: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
    sender.ready().await?;
    let answer = sender.send_request(shared.plan.request()).await?;
    let status = answer.status();
    let mut body = answer.into_body();
    let (mut newlines, mut last) = (0, Bytes::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if shared.plan.stream {
                newlines += data.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
            }
            last = data;
        }
    }
    if status != shared.plan.expected {
        shared.failed(format!("{status}: {}", String::from_utf8_lossy(&last)));
    } else if shared.plan.stream && !last.ends_with(DONE) {
        shared.failed("a stream ended without [DONE]".into());
    } else {
        shared.calls.fetch_add(1, Ordering::Relaxed);
        // Every event ends with two.
        shared.events.fetch_add(newlines / 2, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aig_testkit::OpenaiFake;
    use serde_json::json;

    use super::*;

    async fn load_of(prompt: &str, stream: bool) -> (Seen, Option<String>) {
        let fake = OpenaiFake::start().await.unwrap();
        let address = crate::http1::address(&fake.url()).unwrap();
        let body = json!({ "messages": [{ "role": "user", "content": prompt }], "stream": stream });
        let plan = Plan::post(address, "/v1/chat/completions", "k", &body, StatusCode::OK).unwrap();
        let mut load = Load::of(plan, 200);
        load.done(Duration::from_secs(20)).await.unwrap();
        (load.seen(), load.complaint().map(str::to_owned))
    }

    #[tokio::test]
    async fn every_request_is_sent_once_and_every_event_is_counted() {
        let (seen, complaint) = load_of("[fake words=3]", true).await;
        // The role, three words, the stop, [DONE].
        assert_eq!((seen.calls, seen.events, seen.errors, complaint), (200, 1200, 0, None));
    }

    #[tokio::test]
    async fn what_is_not_a_good_answer_is_an_error() {
        let (seen, complaint) = load_of("[fake status=503]", false).await;
        assert_eq!((seen.calls, seen.errors), (0, 200));
        assert!(complaint.unwrap().starts_with("503"));
        let (seen, _) = load_of("[fake no_done]", true).await;
        assert_eq!((seen.calls, seen.errors), (0, 200));
        let (seen, _) = load_of("[fake cut_after=1]", true).await;
        assert_eq!((seen.calls, seen.errors), (0, 200), "a broken connection is opened again");
    }
}
