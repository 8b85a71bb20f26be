//! Against a real socket: what is sent, and what each failure means.

use aig_domain::Nano;
use aig_domain::json::RawObject;
use aig_fetch::TrustedConfig;
use futures_util::TryStreamExt as _;

use super::*;
use crate::ProviderErrorKind;
use crate::registry::{Models, ProviderKind};
use crate::testing::Canned;

#[expect(clippy::disallowed_methods, reason = "the test stands in for the ledger")]
async fn chat(url: &str, key: &str) -> Result<ChatReply, ChatRefusal> {
    let config = ProviderConfig {
        name: "up".into(),
        kind: ProviderKind::Openai,
        base_url: format!("{url}/v1/").parse().unwrap(),
        api_key: Some(Secret::new(key)),
        models: Models::Any,
        quirks: Vec::new(),
        idempotent_submit: false,
    };
    let provider = Openai::new(config, TrustedClient::new(&TrustedConfig::default()).unwrap());
    let body = RawObject::parse(br#"{"model":"m","messages":[],"temperature":1.0e0}"#).unwrap();
    let call = ChatCall { body: body.into(), stream: false, request_id: "req_1".into() };
    provider.chat(Reservation::mint("req_1".into(), Nano::ZERO), call).await
}

#[tokio::test]
async fn the_body_passes_through_and_the_answer_comes_back() {
    let upstream = Canned::json("200 OK", "", r#"{"id":"x"}"#).await;
    let reply = chat(&upstream.url, "secret").await.ok().unwrap();
    let body: Vec<Bytes> = reply.body.try_collect().await.unwrap();
    assert_eq!(body.concat(), br#"{"id":"x"}"#);
    let sent = upstream.last();
    assert!(sent.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("authorization: Bearer secret\r\n"), "{sent}");
    assert!(sent.ends_with(r#"{"model":"m","messages":[],"temperature":1.0e0}"#), "{sent}");
}

#[tokio::test]
async fn failures_are_told_apart() {
    use ProviderErrorKind::{Auth, ContentRefused, InvalidInput, NotFound, RateLimited, Timeout, Unavailable};
    for (status, body, kind, billing) in [
        ("400 Bad", r#"{"error":{"message":"max_tokens is too large"}}"#, InvalidInput, Billing::Refused),
        (
            "400 Bad",
            r#"{"error":{"message":"no","code":"content_policy_violation"}}"#,
            ContentRefused,
            Billing::Refused,
        ),
        ("401 No", r#"{"error":{"message":"Incorrect API key: secret"}}"#, Auth, Billing::Refused),
        ("404 No", r#"{"error":{"message":"no such model"}}"#, NotFound, Billing::Refused),
        ("422 No", r#"{"detail":"bad"}"#, InvalidInput, Billing::Refused),
        ("429 Slow", r#"{"error":"slow down"}"#, RateLimited, Billing::NotSent),
        ("500 Oops", "<html>", Unavailable, Billing::Refused),
        ("502 Bad Gateway", "<html>", Unavailable, Billing::MaybeBilled),
        ("503 Busy", "", Unavailable, Billing::NotSent),
        ("504 Late", "", Timeout, Billing::MaybeBilled),
    ] {
        let upstream = Canned::json(status, "retry-after: 7\r\n", body).await;
        let refusal = chat(&upstream.url, "secret").await.err().unwrap();
        assert_eq!((refusal.error.kind, refusal.receipt.billing()), (kind, &billing), "{status}");
        assert_eq!(refusal.error.retry_after, Some(Duration::from_secs(7)));
        assert!(!refusal.error.message.contains("secret"), "{}", refusal.error.message);
    }
}

#[tokio::test]
async fn a_lost_answer_may_have_been_billed_and_a_refused_connection_was_not() {
    let closing = Canned::bytes("").await;
    let refusal = chat(&closing.url, "secret").await.err().unwrap();
    assert_eq!(refusal.receipt.billing(), &Billing::MaybeBilled);
    let refusal = chat("http://127.0.0.1:1", "secret").await.err().unwrap();
    assert_eq!(refusal.receipt.billing(), &Billing::NotSent);
    let refusal = chat(&closing.url, "bad\nkey").await.err().unwrap();
    assert_eq!(refusal.receipt.billing(), &Billing::NotSent, "a request that cannot be built is not sent");
}

#[tokio::test]
async fn a_cut_body_is_an_error() {
    let upstream = Canned::bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    let reply = chat(&upstream.url, "secret").await.ok().unwrap();
    let body: Result<Vec<Bytes>, _> = reply.body.try_collect().await;
    assert_eq!(body.unwrap_err().kind, ProviderErrorKind::Unavailable);
}
