//! Start and stop.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use aig_testkit::eventually;
use reqwest::Method;
use serde_json::json;

use crate::gateway::{Gateway, SOON};
use crate::servers::is_distributed;

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    if is_distributed() {
        return; // What one process does alone.
    }
    let gateway = Gateway::start("").await;
    let refused = gateway.command("all").output().unwrap();
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.starts_with("error: another aigateway already runs on"), "{words}");
    // The lock is the database's: another folder is no way around it.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aigateway"));
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(elsewhere.path());
    command.env("AIG_DATABASE_URL", format!("sqlite:{}", gateway.path().join("gateway.db").display()));
    command.env("AIG_SECRET_KEY", gateway.file("secret-key").trim());
    let refused = command.output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("another aigateway already runs on"), "{words}");
    assert_eq!(gateway.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn the_first_start_makes_keys_that_later_starts_keep() {
    let mut gateway = Gateway::start("").await;
    for name in ["first-key", "admin-key", "secret-key"] {
        let mode = std::fs::metadata(gateway.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let key = gateway.key.clone();
    let id = gateway.video("x").await;
    gateway.wait(&id).await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    assert!(!gateway.path().join("url").exists());
    gateway.spawn().await;
    assert_eq!(gateway.key, key);
    assert_eq!(gateway.job(&id).await["status"], "completed");
}

#[tokio::test]
async fn another_secret_key_is_refused() {
    if is_distributed() {
        return; // What one process does alone.
    }
    let mut gateway = Gateway::start("").await;
    gateway.terminate();
    gateway.ended().await;
    std::fs::remove_file(gateway.path().join("secret-key")).unwrap();
    let refused = gateway.command("all").output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("another secret key"), "{words}");
}

#[tokio::test]
async fn a_stop_hands_waiting_jobs_back_and_they_go_on() {
    let mut gateway = Gateway::start("").await;
    let id = gateway.video("[sandbox delay=3s]").await;
    eventually("the job is polled", SOON, || async {
        (gateway.job(&id).await["status"] == "processing").then_some(())
    })
    .await
    .unwrap();
    let begun = Instant::now();
    gateway.terminate();
    assert!(gateway.ended().await.success());
    assert!(begun.elapsed() < Duration::from_secs(3), "a waiting job holds nothing up: {:?}", begun.elapsed());
    gateway.spawn().await;
    assert_eq!(gateway.wait(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_stop_lets_a_stream_end_and_takes_no_new_connections() {
    let mut gateway = Gateway::start("").await;
    let prompt = "[sandbox word_delay=300ms] one two three four five";
    let body = json!({ "stream": true, "messages": [{ "role": "user", "content": prompt }] });
    let stream = gateway.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    gateway.terminate();
    let address = gateway.url.trim_start_matches("http://").to_owned();
    eventually("new connections are refused", SOON, || async {
        tokio::net::TcpStream::connect(&address).await.is_err().then_some(())
    })
    .await
    .unwrap();
    let text = stream.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn migrate_alone_makes_the_account() {
    if is_distributed() {
        return; // What one process does alone.
    }
    let mut gateway = Gateway::start("").await;
    gateway.terminate();
    gateway.ended().await;
    let fresh = tempfile::tempdir().unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_aigateway"))
        .args(["migrate", "--data-dir"])
        .arg(fresh.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(fresh.path().join("first-key").exists() && fresh.path().join("gateway.db").exists());
}

#[tokio::test]
async fn wrong_settings_are_refused_with_file_and_line() {
    if is_distributed() {
        return; // What one process does alone.
    }
    let mut gateway = Gateway::start("").await;
    gateway.terminate();
    gateway.ended().await;
    std::fs::write(gateway.path().join("aigateway.toml"), "\n[server]\nmax_conections = 5\n").unwrap();
    let refused = gateway.command("all").output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("aigateway.toml:3: unknown field `max_conections`"), "{words}");
}
