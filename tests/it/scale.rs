//! Many jobs: that wait for their provider at once, and that wait for a worker.

use std::time::Duration;

use aig_testkit::eventually;
use futures_util::stream::{self, StreamExt as _};
use reqwest::Method;
use serde_json::json;

use crate::gateway::{Answer, Gateway};
use crate::servers::{is_distributed, messages_in};

const JOBS: usize = 10_000;
const MOST_BYTES: u64 = 300 * 1024 * 1024;
const BACKLOG: usize = 100_000;
/// How many messages the dispatcher lets wait in a queue, however much is due.
const MOST_MESSAGES: u32 = 64;
const LONG: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_holds_ten_thousand_jobs_in_flight_in_300_mb() {
    let gateway = Gateway::start("").await;
    let prompt = "[sandbox delay=900s]";
    let role = if is_distributed() {
        gateway.backlog(JOBS, prompt);
        "worker"
    } else {
        let body = json!({ "prompt": prompt });
        stream::iter(0..JOBS)
            .for_each_concurrent(64, |_| async {
                gateway.submit("/v1/3d/generations", &body).await;
            })
            .await;
        "all"
    };
    eventually("every job is in flight", LONG, || async {
        let queued = gateway.get("/v1/jobs?status=queued&limit=1").await.body;
        (queued["data"] == json!([])).then_some(())
    })
    .await
    .unwrap();
    let bytes = gateway.resident_bytes(role);
    assert!(bytes < MOST_BYTES, "{} MB", bytes / 1024 / 1024);
    let ended = gateway.get("/v1/jobs?status=failed&limit=1").await.body;
    assert_eq!(ended["data"], json!([]));
    // It is not so busy with them that one more would have to wait.
    let quick = gateway.submit("/v1/audio/music", &json!({ "prompt": "x", "duration": 1 })).await;
    assert_eq!(gateway.wait(&quick).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_100_000_floods_neither_the_broker_nor_another_tenant() {
    if !is_distributed() {
        return;
    }
    // One job at a time, so that it can be counted how many come first.
    let tasks = "[tasks]\ndispatch_interval_ms = 50\nlease_ms = 3000\n[worker]\nconcurrency = 1\n";
    let mut gateway = Gateway::start_distributed(tasks, &[], &["api", "worker", "scheduler"]).await;
    gateway.kill_role("worker");
    gateway.backlog(BACKLOG, "x");
    let other = gateway.other_account().await;
    let place = gateway.place().unwrap();
    eventually("the dispatcher rings", LONG, || async {
        (messages_in(place, "3d").await == MOST_MESSAGES).then_some(())
    })
    .await
    .unwrap();
    // Twenty ticks later there are no more.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(messages_in(place, "3d").await, MOST_MESSAGES);

    gateway.spawn().await;
    let database = gateway.database().unwrap();
    let done = || database.number("SELECT COUNT(*) FROM jobs WHERE status = 'completed'");
    eventually("the backlog is worked on", LONG, || async { (done() >= 20).then_some(()) }).await.unwrap();
    let submit = gateway.anonymous(Method::POST, &format!("{}/v1/3d/generations", gateway.url));
    let submitted = Answer::of(submit.bearer_auth(&other).json(&json!({ "prompt": "x" })).send().await.unwrap()).await;
    assert_eq!(submitted.status, 202, "{}", submitted.text);
    let id = submitted.body["id"].as_str().unwrap();
    eventually("the other tenant's job is done", LONG, || async {
        let job = gateway.anonymous(Method::GET, &format!("{}/v1/jobs/{id}", gateway.url)).bearer_auth(&other);
        let job = Answer::of(job.send().await.unwrap()).await.body;
        (job["status"] == "completed").then_some(())
    })
    .await
    .unwrap();
    let first = database.number(&format!(
        "SELECT COUNT(*) FROM jobs big, jobs small WHERE small.id = '{id}' AND big.account_id <> small.account_id \
         AND big.completed_at BETWEEN small.created_at AND small.completed_at"
    ));
    // The one that ran, and the one whose claim was on its way.
    assert!(first <= 2, "{first} jobs of the other came first");
    assert!(done() < BACKLOG as u64 / 2, "there was a backlog all the time");
}
