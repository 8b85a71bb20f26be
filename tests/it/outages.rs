//! Servers that are stopped, restarted and starved for real, a disk that is full, and a clock that is wrong, all while jobs run.
//! The rules are those of [`crate::faults`].

use std::process::Command;
use std::time::{Duration, Instant};

use aig_testkit::eventually;
use serde_json::json;

use crate::chaos::{fake, made};
use crate::faults::{JOBS, start, survives};
use crate::gateway::{Gateway, SOON};
use crate::own_servers::{OwnPostgres, OwnRabbit, is_root};
use crate::servers::is_distributed;

const ROLES: [&str; 3] = ["api", "worker", "scheduler"];

/// Jobs are accepted quickly, whatever the broker does.
async fn accepts(gateway: &Gateway) {
    let begun = Instant::now();
    for _ in 0..5 {
        gateway.submit("/v1/audio/music", &json!({ "prompt": "x", "duration": 1 })).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "accepting does not wait for the broker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_may_be_stopped_for_a_minute() {
    if !is_distributed() {
        return;
    }
    let (mut rabbit, fake) = (OwnRabbit::start().await, fake(true).await);
    let gateway = start(&fake, &[("AIG_BROKER_URL", &rabbit.url())], &ROLES).await;
    survives(gateway, fake, async |gateway, fake| {
        made(fake, JOBS / 5).await;
        rabbit.stop();
        let stopped = Instant::now();
        let gateway = gateway.read().await;
        accepts(&gateway).await;
        let music = gateway.submit("/v1/audio/music", &json!({ "prompt": "x", "duration": 1 })).await;
        assert_eq!(gateway.wait(&music).await["status"], "completed", "workers look by themselves");
        tokio::time::sleep(Duration::from_mins(1).saturating_sub(stopped.elapsed())).await;
        accepts(&gateway).await;
        rabbit.restart().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_may_run_short_of_memory() {
    if !is_distributed() {
        return;
    }
    let (rabbit, fake) = (OwnRabbit::start().await, fake(true).await);
    let gateway = start(&fake, &[("AIG_BROKER_URL", &rabbit.url())], &ROLES).await;
    survives(gateway, fake, async |gateway, fake| {
        made(fake, JOBS / 5).await;
        rabbit.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
        let gateway = gateway.read().await;
        eventually("it says that the broker takes no messages", SOON, || async {
            accepts(&gateway).await;
            (gateway.get("/readyz").await.body["broker"] == "failed").then_some(())
        })
        .await
        .unwrap();
        let music = gateway.submit("/v1/audio/music", &json!({ "prompt": "x", "duration": 1 })).await;
        assert_eq!(gateway.wait(&music).await["status"], "completed", "workers look by themselves");
        rabbit.control(&["set_vm_memory_high_watermark", "0.6"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_may_crash_and_recover() {
    if !is_distributed() {
        return;
    }
    let (mut postgres, fake) = (OwnPostgres::start().await, fake(true).await);
    let gateway = start(&fake, &[("AIG_DATABASE_URL", &postgres.url())], &ROLES).await;
    survives(gateway, fake, async |gateway, fake| {
        for part in [1, 2, 3] {
            made(fake, JOBS * part / 5).await;
            postgres.stop_at_once();
            let gateway = gateway.read().await;
            let status = gateway.get("/v1/jobs").await.status;
            assert!(status == 503, "never 401 for a valid key: {status}");
            postgres.restart().await;
        }
    })
    .await;
}

/// A folder of so many kilobytes; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, said visibly, where nothing may be mounted.
    fn mount(kilobytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tmpfs"]).arg(folder.path());
        if is_root() && mount.status().unwrap().success() {
            return Some(Self(folder));
        }
        assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "a disk of a size must be mounted, as root");
        crate::servers::skipped("a disk of a size can be mounted by root alone");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What stays mounted is a few kilobytes.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_only_delays_results() {
    let Some(disk) = SmallDisk::mount(400) else { return };
    let url = format!("file://{}", disk.0.path().display());
    let gateway = Gateway::start_with("", &[("AIG_FILES_URL", &url)]).await;
    let filler = disk.0.path().join("filler");
    // Fails when the disk is full, which is the point.
    let _ = std::fs::write(&filler, vec![1; 1 << 20]);
    let body = json!({ "prompt": "x", "duration": 1 });
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(gateway.submit("/v1/audio/music", &body).await);
    }
    eventually("it says that files cannot be stored", SOON, || async {
        (gateway.get("/readyz").await.body["files"] == "failed").then_some(())
    })
    .await
    .unwrap();
    eventually("the store refused a result", SOON, || async {
        gateway.log().contains("a result was not stored").then_some(())
    })
    .await
    .unwrap();
    for job in &jobs {
        let processing = eventually("what is paid for is not given up", SOON, || async {
            (gateway.job(job).await["status"] == "processing").then_some(())
        });
        processing.await.unwrap();
    }
    std::fs::remove_file(filler).unwrap();
    for job in &jobs {
        let ended = gateway.wait(job).await;
        assert_eq!(ended["status"], "completed");
        let file = gateway.anonymous(reqwest::Method::GET, ended["result_url"].as_str().unwrap()).send().await.unwrap();
        let length = file.content_length();
        assert_eq!(length, Some(file.bytes().await.unwrap().len() as u64), "whole");
    }
    // Readiness writes a file there for a moment, too.
    eventually("nothing is left half-written", SOON, || async {
        (std::fs::read_dir(disk.0.path().join(".unfinished")).unwrap().count() == 0).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_ten_minutes_off_does_no_harm() {
    if !is_distributed() {
        return;
    }
    for (role, skew) in [("worker", "+10m"), ("api", "-10m"), ("scheduler", "+10m")] {
        let fake = fake(true).await;
        let mut gateway = start(&fake, &[], &["api", "worker", "worker", "scheduler"]).await;
        let process = gateway.processes_of(role)[0];
        if !gateway.skew(process, skew) {
            return;
        }
        gateway.restart(process).await;
        let off = gateway.clock_offset(process).await;
        assert!(off.abs() > 500, "its clock is off by {off} s");
        survives(gateway, fake, async |_, fake| made(fake, JOBS / 2).await).await;
    }
}
