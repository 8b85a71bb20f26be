//! A provider that speaks the gateway's own contract: jobs over HTTP.
//!
//! Directives: `work=MS`, `reject=STATUS`, `never`, `fail=ERROR_CODE`, `lose_answer`, `no_result`, `not_media`.
//! What all requests suffer is set with [`JobsFake::set_faults`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use crate::directives::Directives;
use crate::server::{Answer, Body, Cut, Server, answer, streamed};

/// What all requests suffer. Shares are between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub struct JobsFaults {
    /// Whether a second submit with the same `Idempotency-Key` gives the first one's job.
    pub honours_keys: bool,
    /// How long the work takes.
    pub work: Duration,
    /// Share of submits that are accepted and then not answered.
    pub lose_answer: f64,
    /// Share of submits that are refused with 503 before anything is done.
    pub busy: f64,
    /// Share of submits that are refused with 429.
    pub rate_limited: f64,
    /// Share of submits that are accepted and then answered with 500.
    pub error_after: f64,
    /// Share of polls that are answered with nonsense.
    pub garbage_polls: f64,
    /// Share of downloads that are cut in the middle.
    pub cut_downloads: f64,
}

impl Default for JobsFaults {
    fn default() -> Self {
        Self {
            honours_keys: true,
            work: Duration::ZERO,
            lose_answer: 0.0,
            busy: 0.0,
            rate_limited: 0.0,
            error_after: 0.0,
            garbage_polls: 0.0,
            cut_downloads: 0.0,
        }
    }
}

/// What the fake saw and did.
#[derive(Clone, Debug, Default)]
pub struct JobsStats {
    /// How many jobs were made for each `Idempotency-Key`, honoured or not.
    pub creates: HashMap<String, u32>,
    /// How many jobs were made in all: each is billed.
    pub billed: u32,
    /// Submits that arrived.
    pub submits: u32,
    /// Polls that arrived.
    pub polls: u32,
    /// Ids of jobs that were cancelled.
    pub cancelled: Vec<String>,
}

struct Job {
    made: Instant,
    work: Duration,
    path: String,
    directives: Directives,
    cancelled: bool,
}

#[derive(Default)]
struct Inner {
    faults: JobsFaults,
    stats: JobsStats,
    jobs: HashMap<String, Job>,
    by_key: HashMap<String, String>,
    dice: u64,
}

type State = Arc<Mutex<Inner>>;

/// The fake. It lives on while the gateway is killed.
pub struct JobsFake {
    server: Server,
    state: State,
}

impl JobsFake {
    /// Starts the fake on a free port of this machine.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(faults: JobsFaults) -> anyhow::Result<Self> {
        Self::listen("127.0.0.1:0", faults).await
    }

    /// Starts the fake on `address`.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn listen(address: &str, faults: JobsFaults) -> anyhow::Result<Self> {
        let state: State = Arc::new(Mutex::new(Inner { faults, dice: 0x9e37_79b9_7f4a_7c15, ..Inner::default() }));
        let shared = Arc::clone(&state);
        let server = Server::start(address, move |request| {
            let state = Arc::clone(&shared);
            async move { handle(&state, &request) }
        })
        .await?;
        Ok(Self { server, state })
    }

    /// The base URL, without `/v1`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What it saw and did so far.
    pub fn stats(&self) -> JobsStats {
        lock(&self.state).stats.clone()
    }

    /// Sets what all requests suffer from now on.
    pub fn set_faults(&self, faults: JobsFaults) {
        lock(&self.state).faults = faults;
    }
}

fn lock(state: &State) -> MutexGuard<'_, Inner> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Whether something that happens with this share happens now. Deterministic from run to run.
    fn happens(&mut self, share: f64) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        #[expect(clippy::cast_precision_loss, reason = "a die")]
        let die = (self.dice >> 11) as f64 / (1_u64 << 53) as f64;
        die < share
    }
}

fn handle(state: &State, request: &Request<Bytes>) -> Answer {
    let path = request.uri().path();
    let mut inner = lock(state);
    match (request.method(), path) {
        (&Method::POST, "/v1/videos/generations" | "/v1/audio/music" | "/v1/3d/generations") => {
            submit(&mut inner, path, request)
        }
        (&Method::GET, path) if path.starts_with("/v1/jobs/") => Ok(poll(&mut inner, &path["/v1/jobs/".len()..])),
        (&Method::DELETE, path) if path.starts_with("/v1/jobs/") => {
            let id = &path["/v1/jobs/".len()..];
            match inner.jobs.get_mut(id) {
                Some(job) => job.cancelled = true,
                None => return Ok(refused(404)),
            }
            inner.stats.cancelled.push(id.to_owned());
            Ok(poll(&mut inner, id))
        }
        (&Method::GET, path) if path.starts_with("/files/") => Ok(download(&mut inner, &path["/files/".len()..])),
        (&Method::GET, "/stats") => Ok(stats_answer(&inner.stats)),
        _ => Ok(refused(404)),
    }
}

fn submit(inner: &mut Inner, path: &str, request: &Request<Bytes>) -> Answer {
    inner.stats.submits += 1;
    let faults = inner.faults;
    if inner.happens(faults.busy) {
        return Ok(refused(503));
    }
    if inner.happens(faults.rate_limited) {
        return Ok(refused(429));
    }
    let Ok(body) = serde_json::from_slice::<Value>(request.body()) else { return Ok(refused(400)) };
    let directives = Directives::parse(body["prompt"].as_str().unwrap_or(""));
    if let Some(status) = directives.number("reject") {
        return Ok(refused(u16::try_from(status).unwrap_or(400)));
    }
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("").to_owned();
    let known = inner.by_key.get(&key).filter(|_| faults.honours_keys && !key.is_empty()).cloned();
    let id = known.unwrap_or_else(|| create(inner, path, &key, directives.clone()));
    if inner.happens(faults.lose_answer) || directives.has("lose_answer") {
        return Err(Cut);
    }
    if inner.happens(faults.error_after) {
        return Ok(refused(500));
    }
    Ok(json_answer(202, &json!({ "id": id, "object": "job", "status": "queued" })))
}

fn create(inner: &mut Inner, path: &str, key: &str, directives: Directives) -> String {
    inner.stats.billed += 1;
    *inner.stats.creates.entry(key.to_owned()).or_default() += 1;
    let id = format!("job_fake{}", inner.stats.billed);
    let work = if directives.has("work") { directives.millis("work") } else { inner.faults.work };
    let job = Job { made: Instant::now(), work, path: path.to_owned(), directives, cancelled: false };
    inner.jobs.insert(id.clone(), job);
    inner.by_key.insert(key.to_owned(), id.clone());
    id
}

fn poll(inner: &mut Inner, id: &str) -> Response<Body> {
    inner.stats.polls += 1;
    let garbage = inner.faults.garbage_polls;
    if inner.happens(garbage) {
        return answer(200, "application/json", "{\"id\": what?");
    }
    let Some(job) = inner.jobs.get(id) else { return refused(404) };
    let mut record = json!({ "id": id, "object": "job", "status": "processing", "progress": 50 });
    if job.cancelled {
        record["status"] = "failed".into();
        record["error_code"] = "cancelled".into();
    } else if !job.directives.has("never") && job.made.elapsed() >= job.work {
        if let Some(code) = job.directives.text("fail") {
            record["status"] = "failed".into();
            record["error"] = "the fake failed, as it was told to".into();
            record["error_code"] = code.into();
        } else {
            record["status"] = "completed".into();
            if !job.directives.has("no_result") {
                record["result_url"] = format!("/files/{id}").into();
            }
        }
    }
    json_answer(200, &record)
}

fn download(inner: &mut Inner, id: &str) -> Response<Body> {
    let cut = inner.faults.cut_downloads;
    let cut = inner.happens(cut);
    let Some(job) = inner.jobs.get(id) else { return refused(404) };
    let (content_type, head): (_, &[u8]) = match job.path.as_str() {
        _ if job.directives.has("not_media") => ("text/html", b"<script>alert(1)</script>"),
        "/v1/audio/music" => ("audio/wav", b"RIFF\x24\0\0\0WAVEfmt "),
        "/v1/3d/generations" => ("model/gltf-binary", b"glTF\x02\0\0\0"),
        _ => ("video/mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42"),
    };
    let mut bytes = head.to_vec();
    bytes.extend(id.bytes().cycle().take(2000));
    if cut {
        let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
        return streamed(200, content_type, stream::iter([Ok(half), Err(Cut)]));
    }
    answer(200, content_type, bytes)
}

fn stats_answer(stats: &JobsStats) -> Response<Body> {
    let twice = stats.creates.values().filter(|count| **count > 1).count();
    json_answer(
        200,
        &json!({ "billed": stats.billed, "submits": stats.submits, "polls": stats.polls, "made_twice": twice }),
    )
}

fn refused(status: u16) -> Response<Body> {
    let error =
        json!({ "error": { "message": "the fake refuses, as it was told to", "type": "fake_error", "code": status } });
    json_answer(status, &error)
}

fn json_answer(status: u16, body: &Value) -> Response<Body> {
    answer(status, "application/json", body.to_string())
}
