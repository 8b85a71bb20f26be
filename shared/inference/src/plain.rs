//! A chat call whose answer is one JSON object.

use aig_domain::budget::Usage;
use aig_domain::budget::{OpenCall, Reservation};
use aig_domain::{Error, ErrorKind};
use aig_providers::{ByteStream, ChatReply};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chat::{Call, estimate};
use crate::errors;
use crate::relay::WireUsage;

/// The largest answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Makes the call in a task of its own and waits for it.
pub(crate) async fn run(
    call: Call,
    reservation: Reservation,
    must_end: CancellationToken,
    tracker: &TaskTracker,
) -> Result<Bytes, Error> {
    let (mut answer, waiting) = oneshot::channel();
    tracker.spawn(async move {
        let request_id = call.request.request_id.clone();
        let result = tokio::select! {
            // The client left: dropping the call aborts the upstream request.
            () = answer.closed() => {
                call.ledger.abandon_call(&request_id);
                return;
            }
            () = must_end.cancelled() => {
                call.ledger.abandon_call(&request_id);
                Err(errors::restarting())
            }
            result = complete(&call, reservation) => result,
        };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        metrics::counter!("aig_chat_calls_total", "stream" => "false", "outcome" => outcome).increment(1);
        // The client may be gone by now; the call is settled all the same.
        let _ = answer.send(result);
    });
    waiting.await.unwrap_or_else(|_| Err(Error::internal()))
}

async fn complete(call: &Call, reservation: Reservation) -> Result<Bytes, Error> {
    let deadline = Instant::now() + call.config.total;
    let sent = timeout_at(deadline, call.send(reservation)).await;
    let ChatReply { open, body } = match sent {
        Err(_) => {
            call.ledger.abandon_call(&call.request.request_id);
            return Err(errors::too_slow("The provider did not answer in time."));
        }
        Ok(Ok(reply)) => reply,
        Ok(Err(refusal)) => {
            let error = errors::refused(&refusal.error, &refusal.receipt);
            call.ledger.settle_call(refusal.receipt);
            return Err(error);
        }
    };
    match timeout_at(deadline, read(call, body)).await {
        Ok(Ok(body)) => settle(call, open, body),
        Ok(Err(error)) => {
            call.ledger.settle_call(open.maybe_billed());
            Err(error)
        }
        Err(_) => {
            call.ledger.settle_call(open.maybe_billed());
            Err(errors::too_slow("The provider took too long."))
        }
    }
}

async fn read(call: &Call, mut body: ByteStream) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    loop {
        match tokio::time::timeout(call.config.idle, body.next()).await {
            Err(_) => return Err(errors::too_slow("The provider stopped in the middle of its answer.")),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(error))) => return Err(errors::broken(&error)),
            Ok(Some(Ok(chunk))) if whole.len() + chunk.len() > MAX_ANSWER => {
                return Err(errors::nonsense("The provider's answer is larger than 16 MB."));
            }
            Ok(Some(Ok(chunk))) => whole.extend_from_slice(&chunk),
        }
    }
}

/// A completion, as far as it matters here. What is typed otherwise than expected is passed on all the same.
#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow)]
    choices: &'a RawValue,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

fn settle(call: &Call, open: OpenCall, body: Bytes) -> Result<Bytes, Error> {
    let Ok(completion) = serde_json::from_slice::<Completion<'_>>(&body) else {
        call.ledger.settle_call(open.maybe_billed());
        return Err(Error::new(
            ErrorKind::Provider,
            "The provider's answer is not a chat completion. You were not charged. A retry is safe.",
        ));
    };
    let estimated = || Usage {
        input_tokens: estimate(call.request_bytes),
        output_tokens: if completion.choices.get() == "[]" { 0 } else { estimate(body.len()) },
        cached_tokens: 0,
        estimated: true,
    };
    let counted = completion.usage.and_then(|usage| serde_json::from_str::<WireUsage>(usage.get()).ok());
    let usage = counted.as_ref().map_or_else(estimated, WireUsage::usage);
    call.ledger.settle_call(open.billed(usage));
    Ok(body)
}
