//! Delivering one webhook event: sign the stored bytes, send them, record the attempt.
//!
//! One event keeps one id and one body over all attempts. The URL came from a tenant, so it goes through the untrusted
//! fetcher: no redirects, no private addresses, a bounded answer in bounded time.

use aig_domain::webhook::{ANSWER_TIMEOUT, Verdict, verdict};
use aig_domain::{Millis, Secret, id, signing};
use aig_store::{Attempt, Delivery, DeliveryEnd, WebhookEvent, WebhookSecrets};
use bytes::Bytes;

use super::Held;
use crate::persist::{Unwritten, until_stored};
use crate::turn::Turn;

/// How much of an error is kept.
const MAX_ERROR: usize = 300;

/// Makes one attempt at delivering `event`.
pub(crate) async fn run(held: Held, event: WebhookEvent, secrets: &WebhookSecrets, _turn: Turn) {
    let worker = &held.worker;
    let number = held.attempt + 1;
    let begun = (worker.app.clock.now(), tokio::time::Instant::now());
    let (status, retry_after, error) = match headers(&held, &event, secrets) {
        Ok(headers) => {
            let body = Bytes::copy_from_slice(event.body.as_bytes());
            let sent = tokio::select! {
                () = worker.abort.cancelled() => return held.release().await,
                sent = worker.app.fetcher.post(&event.url, headers, body, ANSWER_TIMEOUT) => sent,
            };
            match sent {
                Ok(answer) => (Some(answer.status), answer.retry_after, None),
                Err(error) => (None, None, Some(error.to_string())),
            }
        }
        Err(error) => (None, None, Some(error)),
    };
    let end = match verdict(number, status, retry_after) {
        Verdict::Delivered => DeliveryEnd::Delivered,
        Verdict::GiveUp => DeliveryEnd::GaveUp,
        Verdict::Retry(after) => DeliveryEnd::Retry(worker.app.clock.now().plus(after)),
    };
    match end {
        DeliveryEnd::Delivered => tracing::debug!(attempt = number, status, "a webhook was delivered"),
        DeliveryEnd::GaveUp | DeliveryEnd::Retry(_) => {
            tracing::info!(attempt = number, status, error, ?end, "a webhook was not delivered");
        }
    }
    metrics::counter!("aig_webhook_attempts_total", "outcome" => outcome(end)).increment(1);
    record(&held, event.id, begun, status, error, end).await;
}

/// Gives up on an event whose delivery brought its worker down again and again.
pub(crate) async fn bury(held: &Held, event: WebhookEvent) {
    let begun = (held.worker.app.clock.now(), tokio::time::Instant::now());
    let error = Some("it brought its worker down three times".to_owned());
    record(held, event.id, begun, None, error, DeliveryEnd::GaveUp).await;
}

async fn record(
    held: &Held,
    event_id: String,
    begun: (Millis, tokio::time::Instant),
    status: Option<u16>,
    error: Option<String>,
    end: DeliveryEnd,
) {
    let worker = &held.worker;
    let delivery = Delivery {
        lease: held.lease.clone(),
        event_id,
        attempt: Attempt {
            number: held.attempt + 1,
            at: begun.0,
            duration_ms: u64::try_from(begun.1.elapsed().as_millis()).unwrap_or(u64::MAX),
            status,
            error: error.map(|text| text.chars().take(MAX_ERROR).collect()),
        },
        end,
    };
    let write = || async { Ok(worker.app.store.record_delivery(delivery.clone()).await?) };
    if until_stored(worker, "a webhook attempt", write).await == Err(Unwritten::Impossible) {
        held.crash().await;
    }
}

fn outcome(end: DeliveryEnd) -> &'static str {
    match end {
        DeliveryEnd::Delivered => "delivered",
        DeliveryEnd::GaveUp => "gave_up",
        DeliveryEnd::Retry(_) => "retry",
    }
}

/// The headers of this attempt. The error is a secret that cannot sign, which no repetition mends.
fn headers(held: &Held, event: &WebhookEvent, secrets: &WebhookSecrets) -> Result<Vec<(&'static str, String)>, String> {
    let app = &held.worker.app;
    let now = app.clock.now();
    let in_grace = secrets.previous_until.is_some_and(|until| now < Millis(until));
    let open = |sealed: &str| app.ring.open(&event.account_id, sealed).map(Secret::new).map_err(|e| e.to_string());
    let mut headers = signed(&open(&secrets.current)?, event, now)?;
    if let Some(previous) = secrets.previous.as_deref().filter(|_| in_grace) {
        headers = with_previous(headers, &open(previous)?, event, now)?;
    }
    headers.push(("content-type", "application/json".into()));
    headers.push(("user-agent", concat!("aigateway/", env!("CARGO_PKG_VERSION")).into()));
    headers.push(("aig-delivery-id", id::new("dlv_", now)));
    headers.push(("aig-attempt", (held.attempt + 1).to_string()));
    Ok(headers)
}

fn signed(secret: &Secret, event: &WebhookEvent, now: Millis) -> Result<Vec<(&'static str, String)>, String> {
    signing::webhook_headers(secret, &event.id, now, event.body.as_bytes()).map_err(|error| error.to_string())
}

/// During a secret's time of grace the Standard Webhooks header carries the signatures of both.
fn with_previous(
    mut headers: Vec<(&'static str, String)>,
    previous: &Secret,
    event: &WebhookEvent,
    now: Millis,
) -> Result<Vec<(&'static str, String)>, String> {
    const STANDARD: &str = "webhook-signature";
    let old = signed(previous, event, now)?;
    let old = old.into_iter().find(|(name, _)| *name == STANDARD).map(|(_, value)| value).unwrap_or_default();
    for (name, value) in &mut headers {
        if *name == STANDARD {
            *value = format!("{value} {old}");
        }
    }
    Ok(headers)
}
