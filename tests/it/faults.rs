//! What surrounds the processes fails while jobs run, or one role of them does. Every accepted job still ends once, nothing is
//! made twice, every webhook arrives with one id, and everything recovers without a restart.

use std::process::Command;
use std::time::{Duration, Instant};

use aig_testkit::{FaultProxy, JobsFake, Mode, eventually};
use reqwest::Method;
use serde_json::json;
use tokio::sync::RwLock;

use crate::chaos::{fake, made, run};
use crate::gateway::{Gateway, SOON};
use crate::own_servers::OwnRedis;
use crate::servers::is_distributed;
use crate::upstream::config;

pub const JOBS: usize = 300;
const PAIRS: [&str; 6] = ["api", "api", "worker", "worker", "scheduler", "scheduler"];

pub async fn start(fake: &JobsFake, vars: &[(&str, &str)], roles: &[&'static str]) -> Gateway {
    let quick =
        "[tasks]\ndispatch_interval_ms = 200\nrescue_interval_ms = 200\nsubmit_attempts = 50\nlease_ms = 3000\n";
    Gateway::start_distributed(&format!("{}{quick}", config(&fake.url(), true)), vars, roles).await
}

/// Runs the load under `fault` and holds the outcome to the rules.
pub async fn survives<F>(gateway: Gateway, fake: JobsFake, fault: F)
where
    F: AsyncFnOnce(&RwLock<Gateway>, &JobsFake),
{
    let run = run(gateway, fake, JOBS, fault).await;
    run.check();
    assert_eq!(run.count("status", "completed"), JOBS);
    let gateway = run.gateway.read().await;
    eventually("it is ready again, in every part", SOON, || async {
        let ready = gateway.get("/readyz").await;
        let whole = ready.body["broker"] == "ok" && ready.body["cache"] == "ok";
        (ready.status == 200 && whole).then_some(())
    })
    .await
    .unwrap();
}

/// SIGKILL to every process of `role`, three times, each time after more work was done.
async fn kill_role(gateway: &RwLock<Gateway>, fake: &JobsFake, role: &str) {
    for kill in 1..=3 {
        made(fake, JOBS * kill / 5).await;
        let mut gateway = gateway.write().await;
        gateway.kill_role(role);
        gateway.spawn().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_be_killed() {
    if !is_distributed() {
        return;
    }
    for role in ["api", "worker", "scheduler"] {
        let fake = fake(true).await;
        let gateway = start(&fake, &[], &["api", "worker", "scheduler"]).await;
        survives(gateway, fake, async |gateway, fake| kill_role(gateway, fake, role).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_may_go_away_and_jobs_are_accepted_all_the_same() {
    if !is_distributed() {
        return;
    }
    let proxy = FaultProxy::start("127.0.0.1:5672").await.unwrap();
    let (fake, amqp) = (fake(true).await, proxy.url_of("amqp://guest:guest@127.0.0.1:5672/%2f"));
    let gateway = start(&fake, &[("AIG_BROKER_URL", &amqp)], &["api", "worker", "scheduler"]).await;
    survives(gateway, fake, async |gateway, fake| {
        for mode in [Mode::Refuse, Mode::Stall] {
            made(fake, 50).await;
            proxy.set(mode);
            let began = Instant::now();
            let gateway = gateway.read().await;
            for _ in 0..5 {
                gateway.submit("/v1/audio/music", &json!({ "prompt": "x", "duration": 1 })).await;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "accepting does not wait for the broker");
            eventually("it says that the broker is away, and is ready all the same", SOON, || async {
                let readiness = gateway.get("/readyz").await;
                (readiness.body["broker"] == "failed").then(|| assert_eq!(readiness.status, 200))
            })
            .await
            .unwrap();
            proxy.set(Mode::Pass);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_vhost_may_be_deleted_and_made_again() {
    if !is_distributed() {
        return;
    }
    let vhost = crate::servers::unique();
    let make = || {
        rabbitmqctl(&["add_vhost", &vhost]);
        rabbitmqctl(&["set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"]);
    };
    make();
    let fake = fake(true).await;
    let amqp = format!("amqp://guest:guest@127.0.0.1:5672/{vhost}");
    let gateway = start(&fake, &[("AIG_BROKER_URL", &amqp)], &["api", "worker", "scheduler"]).await;
    survives(gateway, fake, async |_, fake| {
        made(fake, JOBS / 4).await;
        rabbitmqctl(&["delete_vhost", &vhost]);
        make();
    })
    .await;
    rabbitmqctl(&["delete_vhost", &vhost]);
}

fn rabbitmqctl(args: &[&str]) {
    let run = Command::new("rabbitmqctl").arg("-q").args(args).output().unwrap();
    assert!(run.status.success(), "rabbitmqctl {args:?}: {}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_may_be_cut_loudly_and_silently() {
    if !is_distributed() {
        return;
    }
    let proxy = FaultProxy::start("127.0.0.1:5432").await.unwrap();
    let fake = fake(true).await;
    let mut gateway = start(&fake, &[], &["api", "worker", "scheduler"]).await;
    let url = proxy.url_of(&gateway.database().unwrap().url());
    gateway.kill();
    gateway.set_var("AIG_DATABASE_URL", &url);
    gateway.spawn().await;
    survives(gateway, fake, async |gateway, fake| {
        made(fake, JOBS / 5).await;
        gateway.read().await.database().unwrap().cut();
        made(fake, JOBS * 2 / 5).await;
        for mode in [Mode::Refuse, Mode::Stall] {
            proxy.set(mode);
            let gateway = gateway.read().await;
            let asked = gateway.request(Method::GET, "/v1/jobs").timeout(Duration::from_secs(25)).send().await;
            let status = asked.unwrap().status();
            assert!(status == 503 || status == 200, "never 401 for a valid key: {status}");
            proxy.set(Mode::Pass);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_freeze_and_lose_everything() {
    if !is_distributed() {
        return;
    }
    let (redis, fake) = (OwnRedis::start(), fake(true).await);
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let gateway = start(&fake, &[("AIG_CACHE_URL", &url)], &["api", "worker", "scheduler"]).await;
    survives(gateway, fake, async |gateway, fake| {
        made(fake, JOBS / 4).await;
        redis.signal("-STOP");
        let gateway = gateway.read().await;
        eventually("it says that it counts alone", SOON, || async {
            let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
            assert_eq!(gateway.post("/v1/chat/completions", &body).await.status, 200);
            (gateway.get("/readyz").await.body["cache"] == "degraded").then_some(())
        })
        .await
        .unwrap();
        redis.signal("-CONT");
        redis.flush();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_stopped_for_longer_than_its_lease_does_no_harm() {
    if !is_distributed() {
        return;
    }
    let fake = fake(true).await;
    let gateway = start(&fake, &[], &["api", "worker", "scheduler"]).await;
    survives(gateway, fake, async |gateway, fake| {
        for part in [1, 2] {
            made(fake, JOBS * part / 4).await;
            let gateway = gateway.read().await;
            gateway.signal("worker", "STOP");
            // The lease is three seconds; its tasks must have gone back by now.
            tokio::time::sleep(Duration::from_secs(5)).await;
            gateway.signal("worker", "CONT");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    if !is_distributed() {
        return;
    }
    let fake = fake(true).await;
    let gateway = start(&fake, &[], &PAIRS).await;
    survives(gateway, fake, async |gateway, fake| {
        for (part, role) in ["scheduler", "worker", "api"].into_iter().enumerate() {
            made(fake, JOBS * (part + 1) / 5).await;
            let mut gateway = gateway.write().await;
            for process in gateway.processes_of(role) {
                gateway.restart(process).await;
            }
        }
    })
    .await;
}
