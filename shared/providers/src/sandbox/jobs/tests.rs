//! The sandbox's media is real, deterministic and as long as asked for.

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aig_domain::{Clock, Nano};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde_json::json;

use super::*;

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

fn sandbox() -> (Arc<TestClock>, Sandbox) {
    let clock = Arc::new(TestClock(AtomicI64::new(1_000_000)));
    (Arc::clone(&clock), Sandbox::new(clock))
}

fn call(modality: Modality, prompt: &str, extra: &serde_json::Value) -> JobCall {
    let mut params = extra.as_object().cloned().unwrap_or_default();
    params.insert("prompt".into(), json!(prompt));
    JobCall { job_id: "job_1".into(), modality, model: "m".into(), params, attempt: 0 }
}

#[expect(clippy::disallowed_methods, reason = "the test stands in for the ledger")]
async fn submit(sandbox: &Sandbox, call: &JobCall) -> Submission {
    sandbox.submit(Reservation::mint("job_1".into(), Nano::ZERO), call).await
}

async fn make(call: &JobCall) -> (Artifact, Bytes) {
    let (_, sandbox) = sandbox();
    let task = submit(&sandbox, call).await.outcome.unwrap();
    let Poll::Done(artifact) = sandbox.poll(&task, call, 0).await.unwrap() else { panic!("not done") };
    let chunks: Vec<Bytes> = sandbox.download(&artifact, call).await.unwrap().try_collect().await.unwrap();
    (artifact, chunks.concat().into())
}

/// What `ffprobe` says: codec, width and duration. `None` when it is not installed.
fn probe(bytes: &[u8]) -> Option<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let fields = "stream=codec_name,width:format=duration";
    let run = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", fields, "-of", "csv=p=0"])
        .arg(file.path())
        .output();
    match run {
        Ok(run) => {
            assert!(run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
            Some(String::from_utf8(run.stdout).unwrap())
        }
        Err(error) => {
            assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "ffprobe: {error}");
            std::io::stderr().write_all(b"SKIPPED: ffprobe is not installed\n").unwrap();
            None
        }
    }
}

#[tokio::test]
async fn videos_are_as_long_as_asked_for() {
    for (seconds, ratio, width) in [(0.5, "16:9", 320), (4.0, "9:16", 180), (7.25, "1:1", 240), (60.0, "16:9", 320)] {
        let call = call(Modality::Video, "x", &json!({ "duration": seconds, "aspect_ratio": ratio }));
        let (artifact, bytes) = make(&call).await;
        assert_eq!(artifact.duration, Some(seconds));
        assert!(artifact.resolution.unwrap().starts_with(&width.to_string()));
        let Some(seen) = probe(&bytes) else { return };
        let mut lines = seen.lines();
        assert_eq!(lines.next(), Some(format!("h264,{width}").as_str()));
        let length: f64 = lines.next().unwrap().trim_end_matches(',').parse().unwrap();
        assert!((length - seconds).abs() < 0.05, "{length} for {seconds}");
    }
}

#[tokio::test]
async fn music_is_as_long_as_asked_for() {
    for seconds in [1.0, 8.0, 12.5] {
        let (_, bytes) = make(&call(Modality::Music, "x", &json!({ "duration": seconds }))).await;
        let Some(seen) = probe(&bytes) else { return };
        assert!(seen.starts_with("pcm_s16le"), "{seen}");
        let length: f64 = seen.lines().last().unwrap().trim_end_matches(',').parse().unwrap();
        assert!((length - seconds).abs() < 0.01, "{length} for {seconds}");
    }
}

#[tokio::test]
async fn meshes_are_whole() {
    let (_, bytes) = make(&call(Modality::ThreeD, "x", &json!({}))).await;
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((&bytes[..4], word(4), word(8)), (&b"glTF"[..], 2, bytes.len()));
    let text = word(12);
    let document: serde_json::Value = serde_json::from_slice(&bytes[20..20 + text]).unwrap();
    assert_eq!(word(20 + text), bytes.len() - 28 - text);
    let views = document["bufferViews"].as_array().unwrap();
    let end =
        views.iter().map(|view| view["byteOffset"].as_u64().unwrap() + view["byteLength"].as_u64().unwrap()).max();
    assert_eq!(end, document["buffers"][0]["byteLength"].as_u64());
}

#[tokio::test]
async fn the_same_request_makes_the_same_bytes() {
    for modality in [Modality::Video, Modality::Music, Modality::ThreeD] {
        let request = call(modality, "a cat", &json!({ "duration": 2.0 }));
        assert_eq!(make(&request).await.1, make(&request).await.1);
    }
    let other = make(&call(Modality::Music, "a dog", &json!({ "duration": 2.0 }))).await.1;
    assert_ne!(make(&call(Modality::Music, "a cat", &json!({ "duration": 2.0 }))).await.1, other);
}

#[tokio::test]
async fn directives_delay_and_fail() {
    let (clock, sandbox) = sandbox();
    let slow = call(Modality::Video, "[sandbox delay=10s]", &json!({}));
    let task = submit(&sandbox, &slow).await.outcome.unwrap();
    clock.0.fetch_add(5000, Ordering::SeqCst);
    assert_eq!(sandbox.poll(&task, &slow, 0).await, Ok(Poll::Pending { progress: Some(50), after: POLL }));
    clock.0.fetch_add(5000, Ordering::SeqCst);
    assert!(matches!(sandbox.poll(&task, &slow, 1).await, Ok(Poll::Done(_))));

    for (directive, code) in
        [("provider_error", ErrorCode::ProviderError), ("content_refused", ErrorCode::ContentRefused)]
    {
        let failing = call(Modality::Music, &format!("[sandbox fail={directive}]"), &json!({}));
        let poll = sandbox.poll(&task, &failing, 0).await;
        assert!(matches!(&poll, Ok(Poll::Failed(error)) if error.code == code), "{poll:?}");
    }
    let endless = call(Modality::Music, "[sandbox fail=timeout]", &json!({}));
    assert!(matches!(sandbox.poll(&task, &endless, 0).await, Ok(Poll::Pending { .. })));
    let lost = submit(&sandbox, &call(Modality::Music, "[sandbox fail=unknown_outcome]", &json!({}))).await;
    assert_eq!((lost.receipt.billing(), lost.outcome.is_err()), (&Billing::MaybeBilled, true));
    let mut busy = call(Modality::Music, "[sandbox fail_times=2]", &json!({}));
    for (attempt, works) in [(0, false), (1, false), (2, true)] {
        busy.attempt = attempt;
        assert_eq!(submit(&sandbox, &busy).await.outcome.is_ok(), works, "{attempt}");
    }
    let odd = submit(&sandbox, &call(Modality::Video, "x", &json!({ "aspect_ratio": "2:7" }))).await;
    assert_eq!(odd.outcome.unwrap_err().kind, ProviderErrorKind::InvalidInput);
}
