//! Webhooks, as their receivers see them.

use std::time::Duration;

use aig_testkit::{Reply, WebhookReceiver, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, SOON};

async fn secret(gateway: &Gateway) -> String {
    gateway.get("/v1/webhook-secret").await.body["secret"].as_str().unwrap().to_owned()
}

async fn video_to(gateway: &Gateway, url: &str, prompt: &str) -> String {
    gateway.submit("/v1/videos/generations", &json!({ "prompt": prompt, "duration": 1, "webhook_url": url })).await
}

#[tokio::test]
async fn every_end_is_told_once_and_signed_in_every_way() {
    let (gateway, receiver) = (Gateway::start("").await, WebhookReceiver::start().await.unwrap());
    let secret = secret(&gateway).await;
    for (path, prompt, status) in [
        ("/done", "x", "completed"),
        ("/failed", "[sandbox fail=provider_error]", "failed"),
        ("/cancelled", "[sandbox delay=60s]", "failed"),
    ] {
        let id = video_to(&gateway, &receiver.url(path), prompt).await;
        if path == "/cancelled" {
            gateway.request(Method::DELETE, &format!("/v1/jobs/{id}")).send().await.unwrap();
        }
        let delivery = receiver.wait_for(path, 1, SOON).await.unwrap().remove(0);
        assert!(delivery.is_signed_by(&secret), "{delivery:?}");
        assert!(!delivery.is_signed_by("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
        assert!(delivery.header("webhook-id").starts_with("evt_"));
        assert_eq!((delivery.header("aig-attempt"), delivery.header("content-type")), ("1", "application/json"));
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        let mut job = gateway.job(&id).await;
        assert_eq!((&body["status"], body["id"].as_str()), (&json!(status), Some(id.as_str())));
        // The body is the record itself; only the link is another one, good as long as the file.
        for member in ["result_url", "result"] {
            job[member] = body[member].clone();
        }
        assert_eq!(body, job);
        if status == "completed" {
            let url = body["result_url"].as_str().unwrap();
            assert!(url.contains(&format!("exp={}", body["expires_at"])), "{url}");
            assert_eq!(gateway.anonymous(Method::GET, url).send().await.unwrap().status(), 200);
        }
    }
    assert_eq!(receiver.deliveries().len(), 3, "one event per job");
}

#[tokio::test]
async fn a_receiver_that_fails_gets_the_same_bytes_again() {
    let (gateway, receiver) = (Gateway::start("").await, WebhookReceiver::start().await.unwrap());
    receiver.script("/hook", [Reply::Status(500)]);
    video_to(&gateway, &receiver.url("/hook"), "x").await;
    let deliveries = receiver.wait_for("/hook", 2, SOON).await.unwrap();
    let [first, second] = deliveries.as_slice() else { panic!("{deliveries:?}") };
    assert_eq!((first.header("webhook-id"), &first.body), (second.header("webhook-id"), &second.body));
    assert_eq!((first.header("aig-attempt"), second.header("aig-attempt")), ("1", "2"));
    assert_ne!(first.header("aig-delivery-id"), second.header("aig-delivery-id"));
    let gap = second.at - first.at;
    assert!((Duration::from_millis(3900)..Duration::from_secs(8)).contains(&gap), "5 s ± 20 %, and a tick: {gap:?}");
    assert!(second.is_signed_by(&secret(&gateway).await), "signed anew, over the new time");
}

#[tokio::test]
async fn redirects_are_failures_and_lead_nowhere() {
    let (gateway, receiver) = (Gateway::start("").await, WebhookReceiver::start().await.unwrap());
    receiver.script("/hook", [Reply::Redirect(receiver.url("/elsewhere")), Reply::Status(410)]);
    let id = video_to(&gateway, &receiver.url("/hook"), "x").await;
    receiver.wait_for("/hook", 2, SOON).await.unwrap();
    assert!(receiver.at("/elsewhere").is_empty());
    assert_eq!(gateway.job(&id).await["status"], "completed");
}

#[tokio::test]
async fn untrusted_urls_go_through_untrusted_fetcher() {
    // Nothing private is open here, so that neither http nor this machine can be reached, however it is written.
    let receiver = WebhookReceiver::start().await.unwrap();
    let gateway = Gateway::start_with("", &[("AIG_PRIVATE_TARGETS", "none")]).await;
    let own = receiver.url("/hook");
    let https = own.replace("http:", "https:");
    for url in [own.replace("127.0.0.1", "localhost"), https, "http://example.com/".into(), own] {
        let body = json!({ "prompt": "x", "webhook_url": url });
        let refused = gateway.post("/v1/videos/generations", &body).await;
        assert_eq!((refused.status, &refused.body["error"]["param"]), (400, &json!("webhook_url")), "{url}");
    }
    assert!(receiver.deliveries().is_empty());
}

#[tokio::test]
async fn untrusted_urls_go_through_untrusted_fetcher_when_they_are_used_too() {
    let receiver = WebhookReceiver::start().await.unwrap();
    receiver.script("/hook", [Reply::Status(500)]);
    let mut gateway = Gateway::start("").await;
    let id = video_to(&gateway, &receiver.url("/hook"), "x").await;
    receiver.wait_for("/hook", 1, SOON).await.unwrap();
    let store = gateway.store().await;
    let statuses = async || store.webhook_history(&id).await.unwrap().map(|history| history.statuses);
    eventually("the first attempt is on record", SOON, || async {
        (statuses().await == Some(vec![Some(500)])).then_some(())
    })
    .await
    .unwrap();
    gateway.kill();
    gateway.set_var("AIG_PRIVATE_TARGETS", "none");
    gateway.spawn().await;
    eventually("the second attempt is refused", SOON, || async {
        (statuses().await == Some(vec![Some(500), None])).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(receiver.at("/hook").len(), 1, "what was open when the URL was stored is closed now");
}

#[tokio::test]
async fn a_receiver_that_hangs_up_or_dribbles_is_tried_again_or_believed() {
    let (gateway, receiver) = (Gateway::start("").await, WebhookReceiver::start().await.unwrap());
    receiver.script("/cut", [Reply::Cut]);
    receiver.script("/later", [Reply::RetryAfter(8)]);
    video_to(&gateway, &receiver.url("/cut"), "x").await;
    video_to(&gateway, &receiver.url("/later"), "x").await;
    let cut = receiver.wait_for("/cut", 2, SOON).await.unwrap();
    assert_eq!(cut[0].header("webhook-id"), cut[1].header("webhook-id"));
    let later = receiver.wait_for("/later", 2, SOON).await.unwrap();
    let gap = later[1].at - later[0].at;
    assert!((Duration::from_millis(7900)..Duration::from_secs(11)).contains(&gap), "its wish, within bounds: {gap:?}");
}

#[tokio::test]
async fn a_rotated_secret_signs_from_then_on() {
    let (gateway, receiver) = (Gateway::start("").await, WebhookReceiver::start().await.unwrap());
    let first = secret(&gateway).await;
    let rotated = gateway.post("/v1/webhook-secret/rotate", &json!({})).await;
    let second = rotated.body["secret"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(secret(&gateway).await, second);
    video_to(&gateway, &receiver.url("/a"), "x").await;
    let delivery = receiver.wait_for("/a", 1, SOON).await.unwrap().remove(0);
    assert!(delivery.is_signed_by(&second) && !delivery.has_standard_signature(&first));

    let graced = gateway.request(Method::POST, "/v1/webhook-secret/rotate?grace_seconds=60").send().await.unwrap();
    let third = Answer::of(graced).await.body["secret"].as_str().unwrap().to_owned();
    video_to(&gateway, &receiver.url("/b"), "x").await;
    let delivery = receiver.wait_for("/b", 1, SOON).await.unwrap().remove(0);
    assert!(delivery.is_signed_by(&third) && delivery.has_standard_signature(&second), "both, where the scheme can");
}
