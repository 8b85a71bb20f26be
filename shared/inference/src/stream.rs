//! A chat call whose answer is a stream: the relay's sense of time, and of who is still there.
//!
//! The call runs in a task of its own. It passes events on through a small channel, so that a slow client slows its
//! upstream; it ends when the client leaves, when the upstream is silent or takes too long, or when the gateway goes down.

use std::time::Duration;

use aig_domain::Error;
use aig_domain::budget::{Billing, Reservation};
use aig_providers::{ByteStream, ChatRefusal, ChatReply};
use aig_store::RequestOutcome;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bill::Closing;
use crate::chat::{CLIENT_LEFT, Call, Events};
use crate::errors;
use crate::relay::Relay;

/// How many pieces wait for a slow client.
const WAITING: usize = 16;
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Makes the call in a task of its own; gives its events once the upstream answered, or after `config.head`.
pub(crate) async fn run(call: Call, must_end: CancellationToken, tracker: &TaskTracker) -> Result<Events, Error> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (begun, begins) = oneshot::channel();
    let head = call.config.head;
    let client = Client { sender, slow_reader: call.config.slow_reader, must_end: must_end.clone() };
    tracker.spawn(async move {
        let reservation = match call.bill.reserve().await {
            Ok(reservation) => reservation,
            Err(error) => {
                if let Err(Err(error)) = begun.send(Err(error)) {
                    client.fail(error).await;
                }
                return;
            }
        };
        let Ended { closing, outcome, status } = drive(&call, reservation, client, begun, must_end).await;
        metrics::counter!("aig_chat_calls_total", "stream" => "true", "outcome" => outcome.as_str()).increment(1);
        call.bill.close(closing, outcome, status).await;
    });
    let refused = match timeout(head, begins).await {
        Ok(Ok(Err(error))) => Some(error),
        Ok(Err(_)) => Some(Error::internal()),
        Ok(Ok(Ok(()))) | Err(_) => None,
    };
    match refused {
        Some(error) => Err(error),
        None => Ok(Box::pin(stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        }))),
    }
}

/// The client's end of the stream.
struct Client {
    sender: mpsc::Sender<Result<Bytes, Error>>,
    slow_reader: Duration,
    /// When this is cancelled, nobody waits for a slow client any more.
    must_end: CancellationToken,
}

/// How long a client may take to read the last error when the gateway goes down.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Why the client gets nothing any more.
enum Gone {
    /// It left, or takes nothing.
    Left,
    /// The gateway goes down, and it takes nothing at the moment.
    Restart,
}

impl Client {
    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let sent = timeout(self.slow_reader, self.sender.send(Ok(bytes.clone())));
        tokio::select! {
            biased;
            sent = sent => if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Gone::Left) },
            () = self.must_end.cancelled() => match timeout(LAST_WORD, self.sender.send(Ok(bytes))).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Gone::Left),
                Err(_) => Err(Gone::Restart),
            }
        }
    }

    async fn fail(&self, error: Error) {
        // A client that is gone, or takes nothing, needs no error.
        let patience = if self.must_end.is_cancelled() { LAST_WORD } else { self.slow_reader };
        let _ = timeout(patience, self.sender.send(Err(error))).await;
    }

    async fn left(&self) {
        self.sender.closed().await;
    }
}

type Begun = oneshot::Sender<Result<(), Error>>;

/// How a stream ended, for the books.
struct Ended {
    closing: Closing,
    outcome: RequestOutcome,
    status: u16,
}

impl Ended {
    fn left(closing: Closing) -> Self {
        Self { closing, outcome: RequestOutcome::ClientLeft, status: CLIENT_LEFT }
    }
}

async fn drive(
    call: &Call,
    reservation: Reservation,
    client: Client,
    begun: Begun,
    must_end: CancellationToken,
) -> Ended {
    if client.sender.is_closed() {
        return Ended::left(Closing::Refused(reservation.receipt(Billing::NotSent)));
    }
    if must_end.is_cancelled() {
        let (error, closing) = (errors::restarting(), Closing::Refused(reservation.receipt(Billing::NotSent)));
        let status = error.kind.status();
        let _ = begun.send(Err(error));
        return Ended { closing, outcome: RequestOutcome::Failed, status };
    }
    let deadline = Instant::now() + call.config.total;
    let sent_at = Instant::now();
    let ChatReply { open, body } = match answer(call, reservation, &client, deadline, &must_end).await {
        Ok(reply) => reply,
        Err(refused) => {
            let (Refused::With(error), closing) = *refused else { return Ended::left(refused.1) };
            let status = error.kind.status();
            // Once the stream has begun without the upstream, the error goes into it.
            if let Err(Err(error)) = begun.send(Err(error)) {
                client.fail(error).await;
            }
            return Ended { closing, outcome: RequestOutcome::Failed, status };
        }
    };
    metrics::histogram!("aig_chat_head_seconds").record(sent_at.elapsed());
    // An error means that the stream began without us.
    let _ = begun.send(Ok(()));
    let mut relay = Relay::new(call.include_usage, call.request_bytes, call.bill.terms.tariff());
    let passed = pass_on(call, &mut relay, body, &client, deadline, &must_end).await;
    // However it ended, what was written until then was used; of an answer that never began nobody knows.
    let closing = if passed.is_ok() || relay.has_content() {
        Closing::Answered(open, relay.charged())
    } else {
        Closing::Refused(open.maybe_billed())
    };
    match passed {
        Ok(()) => Ended { closing, outcome: RequestOutcome::Completed, status: 200 },
        Err(Refused::Left) => Ended::left(closing),
        Err(Refused::With(error)) => {
            let status = error.kind.status();
            client.fail(error).await;
            Ended { closing, outcome: RequestOutcome::Failed, status }
        }
    }
}

/// Why the client gets no more.
enum Refused {
    Left,
    With(Error),
}

impl From<Gone> for Refused {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Left => Self::Left,
            Gone::Restart => Self::With(errors::restarting()),
        }
    }
}

/// Waits for the head of the upstream's answer; comments keep the client's connection alive.
async fn answer(
    call: &Call,
    reservation: Reservation,
    client: &Client,
    deadline: Instant,
    must_end: &CancellationToken,
) -> Result<ChatReply, Box<(Refused, Closing)>> {
    let mut sent = std::pin::pin!(call.send(reservation));
    let abandoned = |refused| Err(Box::new((refused, Closing::Abandoned)));
    let mut keep_alive = Instant::now() + call.config.keep_alive;
    loop {
        tokio::select! {
            biased;
            () = client.left() => return abandoned(Refused::Left),
            () = must_end.cancelled() => return abandoned(Refused::With(errors::restarting())),
            answered = &mut sent => return answered.map_err(|ChatRefusal { receipt, error }| {
                Box::new((Refused::With(errors::refused(&error, &receipt)), Closing::Refused(receipt)))
            }),
            () = sleep_until(deadline) => {
                return abandoned(Refused::With(errors::too_slow("The provider did not answer in time.")));
            }
            () = sleep_until(keep_alive) => {
                if let Err(gone) = client.send(KEEP_ALIVE).await {
                    return abandoned(gone.into());
                }
                keep_alive = Instant::now() + call.config.keep_alive;
            }
        }
    }
}

/// Passes the body on until it ends.
async fn pass_on(
    call: &Call,
    relay: &mut Relay,
    mut body: ByteStream,
    client: &Client,
    deadline: Instant,
    must_end: &CancellationToken,
) -> Result<(), Refused> {
    let config = &call.config;
    let mut idle = Instant::now() + config.idle;
    let mut keep_alive = Instant::now() + config.keep_alive;
    let mut out = BytesMut::new();
    loop {
        let chunk = tokio::select! {
            biased;
            () = client.left() => return Err(Refused::Left),
            () = must_end.cancelled() => return Err(Refused::With(errors::restarting())),
            chunk = body.next() => chunk,
            () = sleep_until(deadline) => return Err(Refused::With(errors::too_slow("The provider took too long."))),
            () = sleep_until(idle) => {
                return Err(Refused::With(errors::too_slow("The provider stopped in the middle of its answer.")));
            }
            () = sleep_until(keep_alive) => {
                // Between events, and no sign of life of the upstream: its idle time goes on.
                client.send(KEEP_ALIVE).await?;
                keep_alive = Instant::now() + config.keep_alive;
                continue;
            }
        };
        let relayed = match &chunk {
            Some(Ok(bytes)) => relay.push(bytes, &mut out),
            Some(Err(error)) => Err(errors::broken(error)),
            None => relay.end(&mut out),
        };
        if !out.is_empty() {
            client.send(out.split().freeze()).await?;
            keep_alive = Instant::now() + config.keep_alive;
        }
        relayed.map_err(Refused::With)?;
        if chunk.is_none() || relay.is_done() {
            return Ok(());
        }
        idle = Instant::now() + config.idle;
    }
}

#[cfg(test)]
mod tests;
