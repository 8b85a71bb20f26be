//! Chat completions over an OpenAI-compatible upstream.

use std::time::{Duration, Instant};

use aig_testkit::{OpenaiFake, eventually};
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, SOON};

async fn setup(more: &str) -> (OpenaiFake, Gateway) {
    let fake = OpenaiFake::start().await.unwrap();
    let toml = format!(
        "[providers.up]\nkind = 'openai'\nbase_url = '{}'\napi_key_env = 'UP_KEY'\nmodels = ['m', 'org/m']\n{more}",
        fake.url()
    );
    let gateway = Gateway::start_with(&toml, &[("UP_KEY", "sk-upstream-secret")]).await;
    (fake, gateway)
}

fn body(prompt: &str, stream: bool) -> Value {
    json!({ "model": "up/org/m", "messages": [{ "role": "user", "content": prompt }], "stream": stream, "x_unknown": 1.5 })
}

/// The events of a stream: everything after `data: `.
async fn events(gateway: &Gateway, body: &Value) -> (Answer, Vec<String>) {
    let answer = gateway.post("/v1/chat/completions", body).await;
    let lines = answer.text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
    let events = lines.collect();
    (answer, events)
}

#[tokio::test]
async fn a_plain_call_passes_through() {
    let (fake, gateway) = setup("").await;
    let answer = gateway.post("/v1/chat/completions", &body("hi", false)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["choices"][0]["message"]["content"], "word word word word word word word word");
    let (headers, sent) = fake.last().unwrap();
    assert_eq!((&sent["model"], &sent["x_unknown"]), (&json!("org/m"), &json!(1.5)));
    assert_eq!(headers["authorization"], "Bearer sk-upstream-secret");
    assert!(sent.get("stream_options").is_none(), "nothing is added to a plain call");
}

#[tokio::test]
async fn a_stream_ends_with_usage_and_done() {
    let (fake, gateway) = setup("").await;
    let (answer, events) = events(&gateway, &body("hi [fake words=3 split=7 crlf comments]", true)).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream; charset=utf-8"));
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    for chunk in &chunks {
        assert!(chunk["choices"][0]["delta"].is_object(), "unguarded choices[0] survives: {chunk}");
    }
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(7), &json!(3)));
    assert_eq!(fake.last().unwrap().1["stream_options"], json!({ "include_usage": true }));
}

#[tokio::test]
async fn who_asks_for_usage_gets_it_in_openais_form() {
    let (_fake, gateway) = setup("").await;
    let mut body = body("hi", true);
    body["stream_options"] = json!({ "include_usage": true });
    let (_, events) = events(&gateway, &body).await;
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens"]), (&json!([]), &json!(7)));
}

#[tokio::test]
async fn upstream_errors_are_mapped_and_scrubbed() {
    let (_fake, gateway) = setup("").await;
    for (prompt, status, kind) in [
        ("[fake status=400]", 400, "invalid_request_error"),
        ("[fake status=401]", 502, "provider_error"),
        ("[fake status=429 retry_after=7]", 429, "rate_limit_error"),
        ("[fake status=500]", 502, "provider_error"),
        ("[fake status=503]", 502, "provider_error"),
        ("[fake status=504]", 504, "timeout_error"),
        ("[fake cut_head]", 502, "provider_error"),
        ("[fake garbage]", 502, "provider_error"),
    ] {
        for stream in [false, true] {
            if stream && prompt.contains("garbage") {
                continue;
            }
            let answer = gateway.post("/v1/chat/completions", &body(prompt, stream)).await;
            let error = &answer.body["error"];
            assert_eq!((answer.status, &error["type"]), (status, &json!(kind)), "{prompt} {stream}: {}", answer.text);
            assert_eq!(error["request_id"], answer.header("x-request-id"));
            assert!(!answer.text.contains("secret") && !answer.text.contains("127.0.0.1"), "{}", answer.text);
            if status == 429 {
                assert_eq!(answer.header("retry-after"), "7");
            }
        }
    }
}

#[tokio::test]
async fn failures_in_the_middle_of_a_stream_are_events() {
    let (_fake, gateway) = setup("[chat]\nidle_seconds = 1\n").await;
    for prompt in ["cut_after=2", "error_after=2", "garbage_after=2", "stall_after=2", "huge_event", "bad_utf8"] {
        let (answer, events) = events(&gateway, &body(&format!("[fake {prompt}]"), true)).await;
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(answer.status, 200, "{prompt}");
        assert!(last["error"]["message"].is_string(), "{prompt}: {last}");
        assert_eq!(last["error"]["request_id"], answer.header("x-request-id"));
        assert!(!events.iter().any(|event| event == "[DONE]"), "{prompt}");
        assert!(events.len() >= 3, "what came before the failure was passed on: {prompt}");
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes() {
    let (_fake, gateway) = setup("").await;
    let request =
        gateway.request(Method::POST, "/v1/chat/completions").json(&body("[fake words=3 stall_after=2]", true));
    let mut stream = request.send().await.unwrap().bytes_stream();
    let mut seen = String::new();
    while seen.matches("word").count() < 2 {
        seen.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_upstream_with_it() {
    let (fake, gateway) = setup("").await;
    let request = gateway.request(Method::POST, "/v1/chat/completions").json(&body("[fake stall_after=1]", true));
    let mut stream = request.send().await.unwrap().bytes_stream();
    stream.next().await.unwrap().unwrap();
    let left = Instant::now();
    drop(stream);
    eventually("the upstream is aborted", SOON, || async { (fake.stats().aborted == 1).then_some(()) }).await.unwrap();
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
}

#[tokio::test]
async fn a_plain_call_that_is_left_is_aborted_upstream() {
    let (fake, gateway) = setup("").await;
    let request = gateway.request(Method::POST, "/v1/chat/completions").json(&body("[fake head_delay=60000]", false));
    let call = request.timeout(Duration::from_millis(300)).send();
    assert!(call.await.unwrap_err().is_timeout());
    eventually("the call is given up", SOON, || async {
        let metrics = gateway.metrics().await;
        metrics.contains("aig_provider_calls_total{kind=\"chat\",billing=\"maybe_billed\"} 1").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(fake.stats().requests, 1);
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let (_fake, gateway) = setup("[chat]\nkeep_alive_seconds = 0.2\nhead_seconds = 0.1\n").await;
    let answer = gateway.post("/v1/chat/completions", &body("[fake head_delay=900 words=1]", true)).await;
    assert!(
        answer.text.starts_with(": keep-alive\n\n") && answer.text.ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text
    );
    assert!((2..=6).contains(&answer.text.matches(": keep-alive").count()), "{}", answer.text);
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong_and_reach_no_provider() {
    let (fake, gateway) = setup("").await;
    for (body, status, kind) in [
        ("", 400, "invalid_request_error"),
        ("{", 400, "invalid_request_error"),
        ("[]", 400, "invalid_request_error"),
        (r#"{"model":"up/nope","messages":[]}"#, 404, "model_not_found"),
        (r#"{"model":"m","messages":[]}"#, 404, "model_not_found"),
        (r#"{"model":7,"messages":[]}"#, 400, "invalid_request_error"),
        (r#"{"model":"up/m","stream":"yes"}"#, 400, "invalid_request_error"),
        (r#"{"model":"up/m","model":"up/m"}"#, 400, "invalid_request_error"),
        (r#"{"model":"sandbox/video","messages":[]}"#, 400, "invalid_request_error"),
        (r#"{"model":"up/m","stream":true,"stream_options":7}"#, 400, "invalid_request_error"),
    ] {
        let request = gateway.request(Method::POST, "/v1/chat/completions").header("content-type", "application/json");
        let answer = Answer::of(request.body(body).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.body["error"]["type"].as_str()), (status, Some(kind)), "{body}");
    }
    assert_eq!(fake.stats().requests, 0);
    for (path, words) in [("/v1/chat/v1/chat/completions", "/v1"), ("/v1/chat/chat/completions", "/v1")] {
        let lost = gateway.post(path, &json!({})).await;
        assert_eq!(lost.status, 404);
        assert!(
            lost.body["error"]["message"].as_str().unwrap().contains(&format!("{}{words}", gateway.url)),
            "{}",
            lost.text
        );
    }
}

#[tokio::test]
async fn models_are_listed_and_found_raw_and_encoded() {
    let (_fake, gateway) = setup("").await;
    let list = gateway.get("/v1/models?provider=up").await.body;
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["up/m", "up/org/m"]);
    assert_eq!(gateway.get("/v1/models?modality=video").await.body["data"][0]["id"], "sandbox/video");
    for path in ["/v1/models/up/org/m", "/v1/models/up%2Forg%2Fm"] {
        assert_eq!(gateway.get(path).await.body["id"], "up/org/m", "{path}");
    }
    assert_eq!(gateway.get("/v1/models/nope").await.status, 404);
}
