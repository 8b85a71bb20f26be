//! Jobs on another gateway as their provider, over real HTTP.

use std::time::Duration;

use aig_testkit::{JobsFake, JobsFaults, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Gateway, SOON};

pub fn config(url: &str, idempotent: bool) -> String {
    format!(
        "[providers.up]\nkind = 'aigateway'\nbase_url = '{url}'\nmodels = '*'\nidempotent_submit = {idempotent}\n\
         [models.'up/short']\ndeadline_seconds = 1\n"
    )
}

async fn run(gateway: &Gateway, model: &str, prompt: &str) -> Value {
    let id = gateway.submit("/v1/videos/generations", &json!({ "model": model, "prompt": prompt })).await;
    gateway.wait(&id).await
}

#[tokio::test]
async fn each_job_route_reaches_its_own_kind_upstream() {
    let fake = JobsFake::start(JobsFaults::default()).await.unwrap();
    let gateway = Gateway::start(&config(&fake.url(), true)).await;
    for (path, content_type) in [
        ("/v1/videos/generations", "video/mp4"),
        ("/v1/audio/music", "audio/wav"),
        ("/v1/3d/generations", "model/gltf-binary"),
    ] {
        let id = gateway.submit(path, &json!({ "model": "up/any", "prompt": "x" })).await;
        let job = gateway.wait(&id).await;
        assert_eq!(job["result"]["content_type"], content_type, "{job}");
        assert_eq!(fake.stats().creates[&id], 1, "the job id is the idempotency key");
    }
}

#[tokio::test]
async fn what_the_upstream_refuses_or_fails_is_told() {
    let fake = JobsFake::start(JobsFaults::default()).await.unwrap();
    let gateway = Gateway::start(&config(&fake.url(), false)).await;
    for (prompt, code) in [
        ("[fake reject=400]", "invalid_input"),
        ("[fake reject=401]", "provider_error"),
        ("[fake fail=content_refused]", "content_refused"),
        ("[fake fail=poison]", "provider_error"),
    ] {
        let job = run(&gateway, "up/any", prompt).await;
        assert_eq!((&job["error_code"], &job["cost_cents"]), (&json!(code), &json!(0)), "{prompt}: {job}");
    }
    let late = run(&gateway, "up/short", "[fake never]").await;
    assert_eq!(late["error_code"], "deadline_exceeded");
    eventually("the upstream is told to stop", SOON, || async { (!fake.stats().cancelled.is_empty()).then_some(()) })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_asked_again_only_under_an_idempotency_key() {
    let lossy = JobsFaults { lose_answer: 1.0, ..JobsFaults::default() };
    let fake = JobsFake::start(JobsFaults { honours_keys: false, ..lossy }).await.unwrap();
    let gateway = Gateway::start(&config(&fake.url(), false)).await;
    let job = run(&gateway, "up/any", "x").await;
    assert_eq!(job["error_code"], "provider_outcome_unknown");
    assert_eq!((job["cost_cents"].clone(), fake.stats().submits), (json!(0), 1), "it was not sent again");

    let fake = JobsFake::start(lossy).await.unwrap();
    let gateway = Gateway::start(&config(&fake.url(), true)).await;
    let id = gateway.submit("/v1/videos/generations", &json!({ "model": "up/any", "prompt": "x" })).await;
    eventually("a second submit", SOON, || async { (fake.stats().submits >= 2).then_some(()) }).await.unwrap();
    fake.set_faults(JobsFaults::default());
    assert_eq!(gateway.wait(&id).await["status"], "completed");
    assert_eq!(fake.stats().creates[&id], 1);
}

#[tokio::test]
async fn an_upstream_that_stumbles_all_the_time_makes_every_job_once() {
    let faults = JobsFaults {
        lose_answer: 0.1,
        busy: 0.1,
        rate_limited: 0.05,
        error_after: 0.05,
        garbage_polls: 0.2,
        cut_downloads: 0.2,
        work: Duration::from_millis(50),
        honours_keys: true,
    };
    let fake = JobsFake::start(faults).await.unwrap();
    let quick = "[tasks]\ndispatch_interval_ms = 20\nsubmit_attempts = 50\n";
    let gateway = Gateway::start(&format!("{}{quick}", config(&fake.url(), true))).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(gateway.submit("/v1/videos/generations", &json!({ "model": "up/any", "prompt": "x" })).await);
    }
    for id in &ids {
        assert_eq!(gateway.wait(id).await["status"], "completed");
        assert_eq!(fake.stats().creates[id], 1);
    }
}

#[tokio::test]
async fn a_cancel_reaches_the_upstream() {
    let fake = JobsFake::start(JobsFaults::default()).await.unwrap();
    let gateway = Gateway::start(&config(&fake.url(), true)).await;
    let id = gateway.submit("/v1/videos/generations", &json!({ "model": "up/any", "prompt": "[fake never]" })).await;
    eventually("the job is polled", SOON, || async { (fake.stats().polls > 0).then_some(()) }).await.unwrap();
    gateway.request(Method::DELETE, &format!("/v1/jobs/{id}")).send().await.unwrap();
    eventually("the upstream hears of it", SOON, || async { (fake.stats().cancelled.len() == 1).then_some(()) })
        .await
        .unwrap();
    assert_eq!(gateway.job(&id).await["error_code"], "cancelled");
}

#[tokio::test]
async fn what_is_not_media_is_never_served_as_a_page() {
    let fake = JobsFake::start(JobsFaults::default()).await.unwrap();
    let gateway = Gateway::start(&config(&fake.url(), true)).await;
    let job = run(&gateway, "up/any", "[fake not_media]").await;
    assert_eq!(job["result"]["content_type"], "application/octet-stream");
}
