//! A chat call whose answer is one JSON object.

use aig_domain::budget::{Billing, OpenCall, Reservation, Usage};
use aig_domain::json::RawObject;
use aig_domain::{Error, ErrorKind};
use aig_providers::{ByteStream, ChatReply};
use aig_store::RequestOutcome;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bill::{Charged, Closing};
use crate::chat::{CLIENT_LEFT, Call, estimate};
use crate::errors;
use crate::relay::{self, WireUsage};

/// The largest answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Makes the call in a task of its own and waits for it; gives the answer and what it costs.
pub(crate) async fn run(
    call: Call,
    must_end: CancellationToken,
    tracker: &TaskTracker,
) -> Result<(Bytes, Charged), Error> {
    let (mut answer, waiting) = oneshot::channel();
    tracker.spawn(async move {
        let reservation = match call.bill.reserve().await {
            Ok(reservation) => reservation,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        if answer.is_closed() {
            let unsent = reservation.receipt(Billing::NotSent);
            return call.bill.close(Closing::Refused(unsent), RequestOutcome::ClientLeft, CLIENT_LEFT).await;
        }
        if must_end.is_cancelled() {
            let unsent = reservation.receipt(Billing::NotSent);
            let error = errors::restarting();
            let status = error.kind.status();
            let _ = answer.send(Err(error));
            return call.bill.close(Closing::Refused(unsent), RequestOutcome::Failed, status).await;
        }
        let (result, closing) = tokio::select! {
            // The client left: dropping the call aborts the upstream request.
            () = answer.closed() => {
                return call.bill.close(Closing::Abandoned, RequestOutcome::ClientLeft, CLIENT_LEFT).await;
            }
            () = must_end.cancelled() => (Err(errors::restarting()), Closing::Abandoned),
            ended = complete(&call, reservation) => ended,
        };
        let outcome = if result.is_ok() { RequestOutcome::Completed } else { RequestOutcome::Failed };
        metrics::counter!("aig_chat_calls_total", "stream" => "false", "outcome" => outcome.as_str()).increment(1);
        let status = result.as_ref().map_or_else(|error| error.kind.status(), |_| 200);
        // The client may be gone by now; the call is settled all the same, and after it has its answer.
        let _ = answer.send(result);
        call.bill.close(closing, outcome, status).await;
    });
    waiting.await.unwrap_or_else(|_| Err(Error::internal()))
}

/// What the client gets, and how the call ends in the books.
type Ended = (Result<(Bytes, Charged), Error>, Closing);

async fn complete(call: &Call, reservation: Reservation) -> Ended {
    let deadline = Instant::now() + call.config.total;
    let sent = timeout_at(deadline, call.send(reservation)).await;
    let ChatReply { open, body } = match sent {
        Err(_) => return (Err(errors::too_slow("The provider did not answer in time.")), Closing::Abandoned),
        Ok(Ok(reply)) => reply,
        Ok(Err(refusal)) => {
            let error = errors::refused(&refusal.error, &refusal.receipt);
            return (Err(error), Closing::Refused(refusal.receipt));
        }
    };
    match timeout_at(deadline, read(call, body)).await {
        Ok(Ok(body)) => settle(call, open, &body),
        Ok(Err(error)) => (Err(error), Closing::Refused(open.maybe_billed())),
        Err(_) => (Err(errors::too_slow("The provider took too long.")), Closing::Refused(open.maybe_billed())),
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

fn settle(call: &Call, open: OpenCall, body: &Bytes) -> Ended {
    let Ok(completion) = serde_json::from_slice::<Completion<'_>>(body) else {
        let error = Error::new(
            ErrorKind::Provider,
            "The provider's answer is not a chat completion. You were not charged. A retry is safe.",
        );
        return (Err(error), Closing::Refused(open.maybe_billed()));
    };
    let estimated = Usage {
        input_tokens: estimate(call.request_bytes),
        output_tokens: if completion.choices.get() == "[]" { 0 } else { estimate(body.len()) },
        cached_tokens: 0,
        estimated: true,
    };
    let counted = completion.usage.and_then(|usage| serde_json::from_str::<WireUsage>(usage.get()).ok());
    let charged = call.bill.terms.tariff().charge(counted.as_ref().map(WireUsage::usage), estimated);
    let answer = with_cost(body, completion.usage, &charged).unwrap_or_else(|| body.clone());
    (Ok((answer, charged)), Closing::Answered(open, charged))
}

/// The answer with what it costs in its usage; `None` when it costs nothing that is known.
fn with_cost(body: &[u8], usage: Option<&RawValue>, charged: &Charged) -> Option<Bytes> {
    let cost = charged.cost?;
    let own = || serde_json::value::to_raw_value(&WireUsage::from(charged.usage)).ok();
    let usage = match usage.and_then(|usage| relay::with_cost(usage, Some(cost))) {
        Some(usage) => usage,
        None => relay::with_cost(&own()?, Some(cost))?,
    };
    let mut answer: RawObject = serde_json::from_slice(body).ok()?;
    answer.set("usage", usage);
    serde_json::to_vec(&answer).ok().map(Bytes::from)
}
