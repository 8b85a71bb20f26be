//! Against a real socket: what each answer of the upstream means.

use aig_domain::Nano;
use aig_domain::job::ErrorCode;
use aig_fetch::{TrustedConfig, UrlPolicy};
use futures_util::TryStreamExt as _;

use super::*;
use crate::ProviderErrorKind::{self, Auth, BadResponse, ContentRefused, InvalidInput, RateLimited, Unavailable};
use crate::registry::{Models, ProviderKind};
use crate::testing::Canned;

fn provider(url: &str) -> Aigateway {
    let config = ProviderConfig {
        name: "up".into(),
        kind: ProviderKind::Aigateway,
        base_url: url.parse().unwrap(),
        api_key: Some(Secret::new("secret")),
        models: Models::Any,
        quirks: Vec::new(),
        idempotent_submit: true,
    };
    let fetcher = UntrustedFetcher::new(UrlPolicy::default()).unwrap();
    Aigateway::new(config, TrustedClient::new(&TrustedConfig::default()).unwrap(), fetcher)
}

fn call() -> JobCall {
    let params = serde_json::from_str(r#"{"prompt":"a cat","duration":4}"#).unwrap();
    JobCall { job_id: "job_1".into(), modality: Modality::Video, model: "m".into(), params, attempt: 0 }
}

#[expect(clippy::disallowed_methods, reason = "the test stands in for the ledger")]
async fn submit(url: &str) -> Submission {
    provider(url).submit(Reservation::mint("job_1".into(), Nano::ZERO), &call()).await
}

#[tokio::test]
async fn a_submit_carries_the_job_id_as_its_key() {
    let upstream = Canned::json("202 Accepted", "", r#"{"id":"job_up","status":"queued","extra":[1]}"#).await;
    let submission = submit(&upstream.url).await;
    assert_eq!(submission.outcome, Ok(ProviderTask("job_up".into())));
    let sent = upstream.last();
    assert!(sent.starts_with("POST /v1/videos/generations HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("idempotency-key: job_1\r\n") && sent.contains("authorization: Bearer secret\r\n"), "{sent}");
    let body: Value = serde_json::from_str(sent.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, json!({"prompt": "a cat", "duration": 4, "model": "m"}));
}

#[tokio::test]
async fn submits_that_fail_tell_whether_they_may_have_worked() {
    let cases: [(&str, &str, ProviderErrorKind, Billing); 10] = [
        ("400 Bad", r#"{"error":{"message":"no"}}"#, InvalidInput, Billing::NotSent),
        ("400 Bad", r#"{"error":{"message":"no","type":"content_refused"}}"#, ContentRefused, Billing::NotSent),
        ("401 No", "{}", Auth, Billing::NotSent),
        ("402 Pay", "{}", Auth, Billing::NotSent),
        ("409 Running", "{}", InvalidInput, Billing::MaybeBilled),
        ("429 Slow", "{}", RateLimited, Billing::NotSent),
        ("500 Oops", "{}", Unavailable, Billing::MaybeBilled),
        ("503 Busy", "{}", Unavailable, Billing::NotSent),
        ("202 Accepted", "<html>", BadResponse, Billing::MaybeBilled),
        ("202 Accepted", r#"{"id":7,"status":"queued"}"#, BadResponse, Billing::MaybeBilled),
    ];
    for (status, body, kind, billing) in cases {
        let upstream = Canned::json(status, "", body).await;
        let submission = submit(&upstream.url).await;
        assert_eq!(submission.outcome.unwrap_err().kind, kind, "{status} {body}");
        assert_eq!(submission.receipt.billing(), &billing, "{status} {body}");
    }
    let lost = submit(&Canned::bytes("").await.url).await;
    assert_eq!(lost.receipt.billing(), &Billing::MaybeBilled);
    let refused = submit("http://127.0.0.1:1").await;
    assert_eq!(refused.receipt.billing(), &Billing::NotSent);
}

#[tokio::test]
async fn polls_read_the_record() {
    let poll = async |body: &str| {
        let upstream = Canned::json("200 OK", "", body).await;
        provider(&upstream.url).poll(&ProviderTask("job_up".into()), &call(), 0).await
    };
    let pending = poll(r#"{"id":"j","status":"processing","progress":40}"#).await;
    assert_eq!(pending, Ok(Poll::Pending { progress: Some(40), after: FIRST_POLL }));
    let done = poll(r#"{"id":"j","status":"completed","result_url":"/f/video.mp4","result":{"duration":4.0}}"#).await;
    let Ok(Poll::Done(artifact)) = done else { panic!("{done:?}") };
    assert_eq!(
        (artifact.filename.as_str(), artifact.source.as_str(), artifact.duration),
        ("video.mp4", "/f/video.mp4", Some(4.0))
    );
    for (body, code) in [
        (r#"{"id":"j","status":"failed","error":"no","error_code":"content_refused"}"#, ErrorCode::ContentRefused),
        (r#"{"id":"j","status":"failed","error":{"code":"invalid_input","message":"no"}}"#, ErrorCode::InvalidInput),
        (r#"{"id":"j","status":"failed","error_code":"poison"}"#, ErrorCode::ProviderError),
        (r#"{"id":"j","status":"cancelled"}"#, ErrorCode::ProviderError),
    ] {
        let failed = poll(body).await;
        assert!(matches!(&failed, Ok(Poll::Failed(error)) if error.code == code), "{failed:?}");
    }
    for garbage in [
        "",
        "{",
        "[]",
        "null",
        "<html>",
        r#"{"id":"j"}"#,
        r#"{"id":"","status":"queued"}"#,
        r#"{"id":"j","status":"what"}"#,
        r#"{"id":"j","status":"completed"}"#,
        r#"{"id":"j","status":7}"#,
        r#"{"id":"j","status":"completed","result":"x"}"#,
    ] {
        assert_eq!(poll(garbage).await.unwrap_err().kind, BadResponse, "{garbage}");
    }
}

#[tokio::test]
async fn the_key_goes_only_to_the_upstream_itself() {
    let upstream = Canned::json("200 OK", "", "bytes").await;
    let artifact = |source: &str| Artifact {
        filename: "video.mp4".into(),
        content_type: "video/mp4".into(),
        duration: None,
        resolution: None,
        source: source.into(),
    };
    let own = provider(&upstream.url).download(&artifact("/f/video.mp4?token=x"), &call()).await.unwrap();
    assert_eq!(own.try_collect::<Vec<Bytes>>().await.unwrap().concat(), b"bytes");
    assert!(upstream.last().contains("authorization: Bearer secret"));
    let elsewhere = provider("http://127.0.0.1:1").download(&artifact(&format!("{}/x", upstream.url)), &call()).await;
    assert_eq!(elsewhere.err().unwrap().kind, BadResponse);
}

#[test]
fn polls_slow_down() {
    assert_eq!(poll_interval(0), FIRST_POLL);
    assert_eq!(poll_interval(1), Duration::from_millis(750));
    assert_eq!(poll_interval(50), LONGEST_POLL);
    assert!(path_segment("job_1").is_ok());
    for bad in ["", "a/b", "..", "a?b", "a#b", "a b"] {
        assert!(path_segment(bad).is_err(), "{bad}");
    }
}
