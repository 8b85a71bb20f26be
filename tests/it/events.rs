//! A job as it changes, as server-sent events.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::Gateway;

/// The events of a stream that ended: each with its id and its record.
fn events(text: &str) -> Vec<(i64, Value)> {
    let parse = |event: &str| {
        let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some((line("id:")?.parse().ok()?, serde_json::from_str(line("data:")?).ok()?))
    };
    text.split("\n\n").filter_map(parse).collect()
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_and_again_from_any_version() {
    let gateway = Gateway::start("").await;
    let id = gateway.video("[sandbox delay=2s]").await;
    let path = format!("/v1/jobs/{id}/events");
    let followed = gateway.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(followed.headers()["content-type"], "text/event-stream; charset=utf-8");
    let seen = events(&followed.text().await.unwrap());
    let versions: Vec<i64> = seen.iter().map(|(version, _)| *version).collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    assert!(seen.len() >= 2, "{seen:?}");
    let (last, record) = seen.last().unwrap();
    let job = gateway.job(&id).await;
    assert_eq!((&record["status"], &record["id"]), (&json!("completed"), &job["id"]));
    assert_eq!(record["result"]["sha256"], job["result"]["sha256"]);

    let resume = async |version: i64| {
        let request = gateway.request(Method::GET, &path).header("last-event-id", version.to_string());
        events(&request.send().await.unwrap().text().await.unwrap()).len()
    };
    assert_eq!((resume(last - 1).await, resume(*last).await), (1, 0), "only what is new");
    let bad = gateway.request(Method::GET, &path).header("last-event-id", "x").send().await.unwrap();
    assert_eq!(bad.status(), 400);
    assert_eq!(gateway.get("/v1/jobs/job_nope/events").await.status, 404);
}

#[tokio::test]
async fn a_cancel_ends_the_stream() {
    let gateway = Gateway::start("").await;
    let id = gateway.video("[sandbox delay=60s]").await;
    let followed = gateway.request(Method::GET, &format!("/v1/jobs/{id}/events")).send().await.unwrap();
    let mut stream = followed.bytes_stream();
    let mut text = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    gateway.request(Method::DELETE, &format!("/v1/jobs/{id}")).send().await.unwrap();
    while let Some(chunk) = stream.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    let (_, record) = events(&text).pop().unwrap();
    assert_eq!(record["error_code"], "cancelled");
}

#[tokio::test]
async fn any_api_process_tells_of_any_job() {
    if !crate::servers::is_distributed() {
        return; // There is but one.
    }
    let gateway = Gateway::start_distributed("", &[], &["api", "api", "worker", "scheduler"]).await;
    let id = gateway.video("[sandbox delay=1s]").await;
    let other = &gateway.urls("api")[1];
    let followed = gateway.anonymous(Method::GET, &format!("{other}/v1/jobs/{id}/events")).bearer_auth(&gateway.key);
    let seen = events(&followed.send().await.unwrap().text().await.unwrap());
    assert_eq!(seen.last().unwrap().1["status"], "completed");
}
