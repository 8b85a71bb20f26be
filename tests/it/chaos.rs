//! The gateway is killed again and again while jobs run: none is lost, none is paid for twice. [`crate::faults`] breaks its
//! surroundings in the same way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aig_testkit::{JobsFake, JobsFaults, WebhookReceiver, eventually};
use futures_util::stream::{self, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::gateway::{Answer, Gateway};
use crate::servers::is_distributed;
use crate::upstream::config;

const LONG: Duration = Duration::from_mins(4);
/// How many submits are under way at once, where they are counted.
const PERMITS: usize = 32;

/// What came of a load under faults.
pub struct Run {
    pub gateway: Arc<RwLock<Gateway>>,
    pub fake: JobsFake,
    receiver: WebhookReceiver,
    /// Ids of all jobs that were answered with 202.
    accepted: Vec<String>,
    /// The jobs at the end, by id.
    ended: HashMap<String, Value>,
    /// What signs the webhooks.
    secret: String,
}

/// Submits `jobs` jobs under keys of their own while `fault` happens; waits for all ends and webhooks.
pub async fn run<F>(gateway: Gateway, fake: JobsFake, jobs: usize, fault: F) -> Run
where
    F: AsyncFnOnce(&RwLock<Gateway>, &JobsFake),
{
    let receiver = WebhookReceiver::start().await.unwrap();
    let gateway = Arc::new(RwLock::new(gateway));
    let hook = receiver.url("/hook");
    let submits = stream::iter(0..jobs)
        .map(|number| submit(Arc::clone(&gateway), number, hook.clone()))
        .buffer_unordered(16)
        .collect::<Vec<String>>();
    let (accepted, ()) = tokio::join!(submits, fault(&gateway, &fake));
    let ended = all_ends(&gateway, jobs).await;
    let told = |receiver: &WebhookReceiver| -> HashSet<String> {
        receiver.deliveries().iter().map(|delivery| body(&delivery.body)["id"].as_str().unwrap().to_owned()).collect()
    };
    eventually("every end is told", LONG, || async { (told(&receiver).len() == jobs).then_some(()) }).await.unwrap();
    let secret = gateway.read().await.get("/v1/webhook-secret").await.body["secret"].as_str().unwrap().to_owned();
    Run { gateway, fake, receiver, accepted, ended, secret }
}

/// Waits until this many jobs were made.
pub async fn made(fake: &JobsFake, jobs: usize) {
    let jobs = u32::try_from(jobs).unwrap();
    eventually("work goes on", LONG, || async { (fake.stats().billed >= jobs).then_some(()) }).await.unwrap();
}

fn body(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Submits until there is an answer; the key makes that safe.
async fn submit(gateway: Arc<RwLock<Gateway>>, number: usize, hook: String) -> String {
    let request = json!({ "model": "up/any", "prompt": format!("job {number}"), "webhook_url": hook });
    eventually("a submit is answered", LONG, || async {
        let sent = {
            let gateway = gateway.read().await;
            gateway
                .request(Method::POST, "/v1/videos/generations")
                .header("idempotency-key", format!("key-{number}"))
                .json(&request)
                .send()
        };
        let response = sent.await.ok()?;
        (response.status() == 202).then_some(())?;
        let record: Value = response.json().await.ok()?;
        Some(record["id"].as_str()?.to_owned())
    })
    .await
    .unwrap()
}

/// Each kill comes after some more work was done, at a moment that is different each time.
async fn kill_again_and_again(gateway: &RwLock<Gateway>, fake: &JobsFake, jobs: usize, kills: usize) {
    for kill in 1..=kills {
        made(fake, jobs * kill / (kills + 2)).await;
        tokio::time::sleep(Duration::from_millis((kill as u64 * 137) % 400)).await;
        let mut gateway = gateway.write().await;
        gateway.kill();
        gateway.spawn().await;
    }
}

/// Waits until all jobs have ended, and reads them all.
async fn all_ends(gateway: &RwLock<Gateway>, jobs: usize) -> HashMap<String, Value> {
    let gateway = gateway.read().await;
    eventually("every job ends", LONG, || async {
        let mut ended = HashMap::new();
        for status in ["completed", "failed"] {
            let mut after = String::new();
            loop {
                let path = format!("/v1/jobs?limit=100&status={status}{after}");
                let page = Answer::of(gateway.request(Method::GET, &path).send().await.ok()?).await.body;
                // A fault may submit jobs of its own, on another model.
                for job in page["data"].as_array()?.iter().filter(|job| job["model"] == "up/any") {
                    ended.insert(job["id"].as_str()?.to_owned(), job.clone());
                }
                if page["has_more"] != true {
                    break;
                }
                after = format!("&after={}", page["last_id"].as_str()?);
            }
        }
        (ended.len() == jobs).then_some(ended)
    })
    .await
    .unwrap()
}

impl Run {
    pub fn count(&self, member: &str, value: &str) -> usize {
        self.ended.values().filter(|job| job[member] == value).count()
    }

    /// Every accepted job ended, each event has one id and one body, and no job was made twice.
    pub fn check(&self) {
        let accepted: HashSet<&String> = self.accepted.iter().collect();
        assert_eq!(accepted.len(), self.accepted.len(), "each key is one job");
        assert!(accepted.iter().all(|id| self.ended.contains_key(*id)), "an accepted job is never lost");
        assert_eq!(self.ended.len(), self.accepted.len(), "nothing was made that nobody asked for");
        let mut events: HashMap<String, (String, bytes::Bytes)> = HashMap::new();
        for delivery in self.receiver.deliveries() {
            assert!(delivery.is_signed_by(&self.secret), "{delivery:?}");
            let job = body(&delivery.body)["id"].as_str().unwrap().to_owned();
            let event = (delivery.header("webhook-id").to_owned(), delivery.body.clone());
            assert_eq!(*events.entry(job).or_insert_with(|| event.clone()), event, "one event per job, with one id");
        }
        for (id, count) in &self.fake.stats().creates {
            assert_eq!(*count, 1, "{id} was made more than once");
        }
    }
}

pub async fn fake(honours_keys: bool) -> JobsFake {
    JobsFake::start(JobsFaults { honours_keys, work: Duration::from_millis(700), ..JobsFaults::default() })
        .await
        .unwrap()
}

/// How many jobs and kills: fewer where every kill ends and starts a process for each role.
fn load() -> (usize, usize) {
    if is_distributed() { (300, 3) } else { (2000, 10) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_ten_times_two_thousand_jobs_all_complete_once() {
    let (jobs, kills) = load();
    let fake = fake(true).await;
    // Many at once, so that each kill meets many, and some of them more than twice.
    let permits = "[worker]\nconcurrency = 256\n";
    let gateway = Gateway::start(&format!("{}{permits}", config(&fake.url(), true))).await;
    let run =
        run(gateway, fake, jobs, async |gateway, fake| kill_again_and_again(gateway, fake, jobs, kills).await).await;
    run.check();
    assert_eq!(
        run.count("status", "completed"),
        jobs,
        "{:?}",
        run.ended.values().find(|job| job["status"] == "failed")
    );
    assert_eq!(run.fake.stats().billed as usize, jobs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_idempotency_upstream_nothing_is_made_twice() {
    let (jobs, kills) = load();
    let fake = fake(false).await;
    // A lease of three seconds, on cores that everything shares, runs out by itself now and then; what was being submitted is
    // then in doubt without any kill, and the counts below would say nothing.
    let tasks = "[tasks]\ndispatch_interval_ms = 50\nrescue_interval_ms = 200\nlease_ms = 15000\n";
    let permits = format!("[worker]\nconcurrency = {PERMITS}\n");
    let gateway = Gateway::start(&format!("{}{tasks}{permits}", config(&fake.url(), false))).await;
    let run =
        run(gateway, fake, jobs, async |gateway, fake| kill_again_and_again(gateway, fake, jobs, kills).await).await;
    run.check();
    let unknown = run.count("error_code", "provider_outcome_unknown");
    assert_eq!(run.count("status", "completed") + unknown, jobs, "all others complete");
    for job in run.ended.values().filter(|job| job["status"] == "failed") {
        assert_eq!(job["cost_cents"], 0);
    }
    let metrics = run.gateway.read().await.metrics().await;
    // Each kill can leave no more in doubt than submits were under way: one for each permit.
    assert!(unknown <= PERMITS * kills, "{unknown} unknown\n{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_postgres_no_job_is_lost() {
    if is_distributed() {
        return; // One process, which the other composition's run covers.
    }
    let fake = fake(true).await;
    let Some(gateway) = Gateway::start_on_postgres(&config(&fake.url(), true)).await else { return };
    assert!(gateway.database().is_some());
    let run = run(gateway, fake, 400, async |gateway, fake| kill_again_and_again(gateway, fake, 400, 3).await).await;
    run.check();
    assert_eq!(run.count("status", "completed"), 400);
}
