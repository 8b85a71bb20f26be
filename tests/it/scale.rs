//! Many jobs that wait for their provider at once.

use std::time::Duration;

use aig_testkit::eventually;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;

use crate::gateway::Gateway;
use crate::servers::is_distributed;

const JOBS: usize = 10_000;
const MOST_BYTES: u64 = 300 * 1024 * 1024;
const LONG: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_holds_ten_thousand_jobs_in_flight_in_300_mb() {
    let gateway = Gateway::start("").await;
    let body = json!({ "prompt": "[sandbox delay=600s]", "duration": 1 });
    stream::iter(0..JOBS)
        .for_each_concurrent(64, |_| async {
            gateway.submit("/v1/videos/generations", &body).await;
        })
        .await;
    eventually("every job is in flight", LONG, || async {
        let queued = gateway.get("/v1/jobs?status=queued&limit=1").await.body;
        (queued["data"] == json!([])).then_some(())
    })
    .await
    .unwrap();
    let role = if is_distributed() { "worker" } else { "all" };
    let bytes = gateway.resident_bytes(role);
    assert!(bytes < MOST_BYTES, "{} MB", bytes / 1024 / 1024);
    let ended = gateway.get("/v1/jobs?status=failed&limit=1").await.body;
    assert_eq!(ended["data"], json!([]));
    // It is not so busy with them that one more would have to wait.
    let quick = gateway.submit("/v1/audio/music", &json!({ "prompt": "x", "duration": 1 })).await;
    assert_eq!(gateway.wait(&quick).await["status"], "completed");
}
