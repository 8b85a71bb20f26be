//! A provider that speaks OpenAI's chat completions.
//!
//! Directives: `words=N` (default 8), `head_delay`, `word_delay`, `stall_after=N`, `cut_after=N`, `error_after=N`, `cut_head`,
//! `garbage`, `garbage_after=N`, `bad_utf8`, `huge_event`, `no_usage`, `no_done`, `crlf`, `comments`, `split=BYTES`,
//! `status=N` (with `retry_after=SECONDS`), `hold` (no answer before [`OpenaiFake::release`]).
//!
//! What it says it used: `prompt_tokens=X` and `completion_tokens=X`, where X is any JSON without spaces, or a word, which is sent
//! as a string; `bound_usage=FACTOR` (default 1): so many times the most that such a request can use, a token for each byte
//! read and `max_tokens` for each choice; `usage_twice`: a stream says half of it first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::directives::Directives;
use crate::server::{Answer, Body, Cut, Server, answer, streamed};

/// What the fake saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenaiStats {
    /// Chat requests that arrived.
    pub requests: u64,
    /// Chat requests whose work was done, at least in part.
    pub billed: u64,
    /// Streams that the other side left before their end.
    pub aborted: u64,
}

#[derive(Default)]
struct State {
    requests: AtomicU64,
    billed: AtomicU64,
    aborted: AtomicU64,
    last: Mutex<Option<(http::HeaderMap, Value)>>,
    /// Whether requests that were told to wait may go on.
    released: watch::Sender<bool>,
}

/// The fake.
pub struct OpenaiFake {
    server: Server,
    state: Arc<State>,
}

impl OpenaiFake {
    /// Starts the fake on a free port of this machine.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> anyhow::Result<Self> {
        Self::listen("127.0.0.1:0").await
    }

    /// Starts the fake on `address`.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn listen(address: &str) -> anyhow::Result<Self> {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let server = Server::start(address, move |request| handle(Arc::clone(&shared), request)).await?;
        Ok(Self { server, state })
    }

    /// The base URL for an OpenAI client, with `/v1`.
    pub fn url(&self) -> String {
        format!("{}/v1", self.server.url())
    }

    /// What it saw and did so far.
    pub fn stats(&self) -> OpenaiStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        OpenaiStats {
            requests: load(&self.state.requests),
            billed: load(&self.state.billed),
            aborted: load(&self.state.aborted),
        }
    }

    /// Headers and body of the last chat request.
    pub fn last(&self) -> Option<(http::HeaderMap, Value)> {
        self.state.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets requests with `hold` go on, those that come later too.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// From now on requests with `hold` wait again.
    pub fn hold(&self) {
        self.state.released.send_replace(false);
    }
}

/// Sleeps, if there is anything to sleep: even a sleep of nothing waits for the timer's next tick.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

async fn handle(state: Arc<State>, request: Request<Bytes>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/chat/completions") => chat(state, request).await,
        (&Method::GET, "/v1/models") => {
            Ok(json_answer(200, &json!({ "object": "list", "data": [{ "id": "fake", "object": "model" }] })))
        }
        _ => Ok(json_answer(404, &error_body("no such route", "not_found"))),
    }
}

async fn chat(state: Arc<State>, request: Request<Bytes>) -> Answer {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let Ok(body) = serde_json::from_slice::<Value>(request.body()) else {
        return Ok(json_answer(400, &error_body("not JSON", "invalid_request_error")));
    };
    let seen = (request.headers().clone(), body.clone());
    *state.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    let directives = Directives::parse(&body["messages"].to_string());
    pause(directives.millis("head_delay")).await;
    if directives.has("hold") {
        // The sender lives as long as the state, so that this only ends when it is told to.
        let _ = state.released.subscribe().wait_for(|released| *released).await;
    }
    if directives.has("cut_head") {
        state.billed.fetch_add(1, Ordering::SeqCst);
        return Err(Cut);
    }
    if let Some(status) = directives.number("status") {
        return Ok(refusal(u16::try_from(status).unwrap_or(500), &directives));
    }
    state.billed.fetch_add(1, Ordering::SeqCst);
    if directives.has("garbage") {
        return Ok(answer(200, "application/json", "<html>what?</html>"));
    }
    let words = directives.number("words").unwrap_or(8);
    let usage = usage(&directives, words, request.body().len(), &body);
    if body["stream"] == true {
        let usage = (body["stream_options"]["include_usage"] == true).then_some(usage);
        Ok(streamed(200, "text/event-stream", events(state, &directives, words, usage.as_ref())))
    } else {
        let mut whole = json!({
            "id": "chatcmpl-fake", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{
                "index": 0, "finish_reason": "stop",
                "message": { "role": "assistant", "content": "word ".repeat(words).trim_end() },
            }],
        });
        if !directives.has("no_usage") {
            whole["usage"] = usage;
        }
        Ok(json_answer(200, &whole))
    }
}

fn refusal(status: u16, directives: &Directives) -> Response<Body> {
    let mut response = json_answer(status, &error_body("the fake refuses, as it was told to", "fake_error"));
    if let Some(seconds) = directives.number("retry_after") {
        response.headers_mut().insert(http::header::RETRY_AFTER, (seconds as u64).into());
    }
    response
}

/// What a request of `bytes` says it used that is answered with so many words.
fn usage(directives: &Directives, words: usize, bytes: usize, body: &Value) -> Value {
    let (mut read, mut written) = (7, words as u64);
    if directives.has("bound_usage") {
        let factor = directives.number("bound_usage").unwrap_or(1) as u64;
        // The gateway's count has a comma after the last member, too.
        read = (bytes as u64 + 1) * factor;
        written = body["max_tokens"].as_u64().unwrap_or(0) * body["n"].as_u64().unwrap_or(1) * factor;
    }
    let said = |name: &str, count: u64| match directives.text(name) {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        None => Value::from(count),
    };
    let (prompt, completion) = (said("prompt_tokens", read), said("completion_tokens", written));
    // Who miscounts miscounts the total, too.
    let total = prompt.as_u64().zip(completion.as_u64()).map(|(read, written)| read.saturating_add(written));
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total })
}

/// Half of it.
fn half(usage: &Value) -> Value {
    let half = |name: &str| usage[name].as_u64().map_or_else(|| usage[name].clone(), |count| (count / 2).into());
    json!({ "prompt_tokens": half("prompt_tokens"), "completion_tokens": half("completion_tokens") })
}

/// Tells when a stream was left before its end.
struct Aborted {
    state: Arc<State>,
    ended: bool,
}

impl Aborted {
    /// The stream went to the end that was meant for it.
    fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for Aborted {
    fn drop(&mut self) {
        if !self.ended {
            self.state.aborted.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// One thing that happens in a stream.
enum Act {
    Send(Bytes),
    Sleep(Duration),
    Stall,
    Cut,
}

fn events(
    state: Arc<State>,
    directives: &Directives,
    words: usize,
    usage: Option<&Value>,
) -> impl Stream<Item = Result<Bytes, Cut>> + Send + Sync + 'static {
    let acts = script(directives, words, usage);
    let guard = Aborted { state, ended: false };
    stream::unfold((acts.into_iter(), guard), |(mut acts, mut guard)| async move {
        loop {
            match acts.next() {
                None => {
                    guard.ended();
                    return None;
                }
                Some(Act::Send(bytes)) => return Some((Ok(bytes), (acts, guard))),
                Some(Act::Sleep(time)) => pause(time).await,
                Some(Act::Stall) => std::future::pending().await,
                Some(Act::Cut) => {
                    // What was sent before has to leave first: a cut takes with it what still lies in the buffer.
                    pause(Duration::from_millis(20)).await;
                    guard.ended();
                    return Some((Err(Cut), (Vec::new().into_iter(), guard)));
                }
            }
        }
    })
    .fuse()
}

fn script(directives: &Directives, words: usize, usage: Option<&Value>) -> Vec<Act> {
    let end = if directives.has("crlf") { "\r\n\r\n" } else { "\n\n" };
    let chunk = |choices: Value, said: Value| {
        let mut chunk = json!({ "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": choices });
        if usage.is_some() {
            chunk["usage"] = said;
        }
        format!("data: {chunk}{end}")
    };
    let delta = |delta: Value, finish: Value| {
        chunk(json!([{ "index": 0, "delta": delta, "finish_reason": finish }]), Value::Null)
    };
    let mut acts = vec![delta(json!({ "role": "assistant", "content": "" }), Value::Null).into_act()];
    for word in 0..words {
        acts.push(Act::Sleep(directives.millis("word_delay")));
        if directives.has("comments") {
            acts.push(": a comment\n\n".to_owned().into_act());
        }
        acts.push(delta(json!({ "content": "word " }), Value::Null).into_act());
        let now = |name: &str| directives.number(name) == Some(word + 1);
        if now("stall_after") {
            acts.push(Act::Stall);
        }
        if now("cut_after") {
            acts.push(Act::Cut);
        }
        if now("error_after") {
            acts.push(format!("data: {}{end}", error_body("overloaded", "server_error")).into_act());
        }
        if now("garbage_after") {
            acts.push(format!("data: {{what?{end}").into_act());
        }
    }
    if directives.has("bad_utf8") {
        acts.push(Act::Send(Bytes::from_static(b"data: \"\xff\xfe\"\n\n")));
    }
    if directives.has("huge_event") {
        acts.push(format!("data: \"{}\"{end}", "x".repeat(2 * 1024 * 1024)).into_act());
    }
    acts.push(delta(json!({}), json!("stop")).into_act());
    if let Some(usage) = usage.filter(|_| !directives.has("no_usage")) {
        if directives.has("usage_twice") {
            acts.push(chunk(json!([]), half(usage)).into_act());
        }
        acts.push(chunk(json!([]), usage.clone()).into_act());
    }
    if !directives.has("no_done") {
        acts.push(format!("data: [DONE]{end}").into_act());
    }
    match directives.number("split") {
        Some(size) => acts.into_iter().flat_map(|act| split(act, size.max(1))).collect(),
        None => acts,
    }
}

trait IntoAct {
    fn into_act(self) -> Act;
}

impl IntoAct for String {
    fn into_act(self) -> Act {
        Act::Send(self.into())
    }
}

fn split(act: Act, size: usize) -> Vec<Act> {
    match act {
        Act::Send(bytes) => bytes.chunks(size).map(|piece| Act::Send(Bytes::copy_from_slice(piece))).collect(),
        other => vec![other],
    }
}

fn error_body(message: &str, kind: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": null } })
}

fn json_answer(status: u16, body: &Value) -> Response<Body> {
    answer(status, "application/json", body.to_string())
}
