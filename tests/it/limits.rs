//! Rate limits, as the clients of a limited key see them.

use reqwest::Method;
use serde_json::json;

use crate::gateway::{Answer, Gateway};

async fn chat(gateway: &Gateway) -> Answer {
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    gateway.post("/v1/chat/completions", &body).await
}

#[tokio::test]
async fn a_limited_key_gets_its_burst_then_429_and_may_still_read() {
    // 30 a minute: a burst of 10, then one token in two seconds.
    let gateway = Gateway::start("[tiers]\nunlimited = 30\n").await;
    let mut allowed = 0;
    let refused = loop {
        let answer = chat(&gateway).await;
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "30");
        if answer.status != 200 {
            break answer;
        }
        allowed += 1;
        assert!(allowed < 20, "it is limited");
    };
    assert!((10..=12).contains(&allowed), "{allowed}");
    assert_eq!((refused.status, &refused.body["error"]["type"]), (429, &json!("rate_limit_error")));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
    let reset: u32 = refused.header("x-ratelimit-reset-requests").parse().unwrap();
    assert!((15..=20).contains(&reset), "{reset}");
    assert!((1..=2).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
    assert!(refused.header("x-request-id").starts_with("req_"));
    for _ in 0..20 {
        assert_eq!(gateway.get("/v1/models").await.status, 200, "reading is not limited");
    }
    let video = gateway.post("/v1/videos/generations", &json!({ "prompt": "x" })).await;
    assert_eq!(video.status, 429, "one bucket for all that costs money");
    assert_eq!(gateway.get("/v1/jobs").await.body["data"], json!([]), "a refused job is not there");
}

#[tokio::test]
async fn an_unlimited_key_has_no_limit_and_no_headers() {
    let gateway = Gateway::start("").await;
    for _ in 0..30 {
        let answer = chat(&gateway).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-limit-requests")), (200, ""));
    }
    let other = gateway.request(Method::GET, "/v1/models").send().await.unwrap();
    assert!(!other.headers().contains_key("x-ratelimit-limit-requests"));
}
