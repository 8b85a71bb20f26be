//! Publishing: one task sends what waits and hears the confirms.
//!
//! Promises: a publish succeeds only when the broker has confirmed the message it travelled in as routed and stored; it ends
//! within [`CONFIRM`], and at once while there is no connection. Messages of one queue that wait at the same moment become one
//! message, since all it says is that the queue has work. At most [`CAPACITY`] callers wait to be sent and as many for their
//! confirm. A confirm that does not come ends the session. Tests: `tests/suite/publish.rs`, `tests/suite/outages.rs`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Shared;
use super::link::{Link, blocked};
use super::session::Session;
use crate::{BrokerError, Message};

/// How many callers wait to be sent; also how many wait for a confirm.
const CAPACITY: usize = 4096;
/// How many messages are on their way to the broker at once.
const WINDOW: usize = 256;
/// How many ids a merged message keeps. They are only a trace, for people.
const TRACE: usize = 64;
/// How long a confirm may take, and how long a caller waits in all.
const CONFIRM: Duration = Duration::from_secs(5);
/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;

type Answer = oneshot::Sender<Result<(), BrokerError>>;

/// A caller and what it wants to be sent.
struct Bell {
    queue: usize,
    trace: Vec<String>,
    answer: Answer,
}

/// One message for the bells of one queue.
#[derive(Default)]
struct Batch {
    trace: Vec<String>,
    answers: Vec<Answer>,
}

/// The way to the publishing task.
pub(super) struct Publisher {
    link: Link,
    shared: Arc<Shared>,
    bells: mpsc::Sender<Bell>,
}

impl Publisher {
    pub(super) fn start(link: Link, shared: &Arc<Shared>) -> Self {
        let (bells, waiting) = mpsc::channel(CAPACITY);
        shared.tracker.spawn(run(link.clone(), Arc::clone(shared), waiting));
        Self { link, shared: Arc::clone(shared), bells }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        self.link.session()?;
        let queue = self.shared.queue(&message.queue)?;
        let (answer, answered) = oneshot::channel();
        match self.bells.try_send(Bell { queue, trace: message.trace, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(BrokerError::Full(message.queue)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(BrokerError::Closed),
        }
        match timeout(CONFIRM, answered).await {
            Ok(Ok(result)) => result,
            // The task ends without an answer only when the broker is closed.
            Ok(Err(_)) => Err(BrokerError::Closed),
            Err(_) => Err(BrokerError::Unconfirmed(message.queue)),
        }
    }
}

async fn run(link: Link, shared: Arc<Shared>, mut bells: mpsc::Receiver<Bell>) {
    let mut waiting = Vec::new();
    let mut on_their_way = FuturesUnordered::new();
    let mut callers = 0;
    loop {
        let room = if on_their_way.len() + shared.queues.len() <= WINDOW { CAPACITY - callers } else { 0 };
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            Some(answered) = on_their_way.next() => callers -= answered,
            received = bells.recv_many(&mut waiting, room), if room > 0 => {
                if received == 0 {
                    return;
                }
                let session = link.session().and_then(|session| if session.is_blocked() { Err(blocked()) } else { Ok(session) });
                for (queue, batch) in merged(waiting.drain(..)) {
                    match &session {
                        Ok(session) => {
                            callers += batch.answers.len();
                            on_their_way.push(deliver(Arc::clone(session), Arc::clone(&shared), queue, batch));
                        }
                        Err(error) => batch.answer(&Err(error.clone())),
                    }
                }
            }
        }
    }
}

/// One batch per queue. Who has stopped waiting is left out.
fn merged(bells: impl Iterator<Item = Bell>) -> BTreeMap<usize, Batch> {
    let mut batches = BTreeMap::<usize, Batch>::new();
    for bell in bells.filter(|bell| !bell.answer.is_closed()) {
        let batch = batches.entry(bell.queue).or_default();
        batch.trace.extend(bell.trace.into_iter().take(TRACE - batch.trace.len()));
        batch.answers.push(bell.answer);
    }
    batches
}

impl Batch {
    fn answer(self, result: &Result<(), BrokerError>) {
        for answer in self.answers {
            // Who does not wait any more has been told that it is unconfirmed.
            let _ = answer.send(result.clone());
        }
    }
}

/// Sends one batch, answers its callers, and gives their number.
async fn deliver(session: Arc<Session>, shared: Arc<Shared>, queue: usize, mut batch: Batch) -> usize {
    let callers = batch.answers.len();
    let trace = std::mem::take(&mut batch.trace);
    let result = send(&session, &shared, queue, trace).await;
    batch.answer(&result);
    callers
}

async fn send(session: &Session, shared: &Shared, queue: usize, trace: Vec<String>) -> Result<(), BrokerError> {
    let (Some(name), Some(channel)) = (shared.queues.get(queue), session.channel(queue)) else {
        return Err(BrokerError::Closed);
    };
    let ours = || name.ours.to_owned();
    let message = Message { queue: ours(), trace };
    // Strings can always be written; and a message without content would ring all the same.
    let body = serde_json::to_vec(&message).unwrap_or_default();
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_content_type("application/json".into());
    let mut confirmed = pin!(async {
        let sent = channel.basic_publish("".into(), name.wire.as_str().into(), options, &body, properties).await?;
        sent.await
    });
    loop {
        return match timeout(CONFIRM, &mut confirmed).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            // The broker confirms what it had no queue for, too, and gives it back.
            Ok(Ok(Confirmation::Ack(Some(_)))) => {
                session.give_up(format!("the queue `{}` is gone and has to be declared again", name.wire));
                Err(BrokerError::Unroutable(ours()))
            }
            Ok(Ok(Confirmation::Nack(_))) => Err(BrokerError::Full(ours())),
            Ok(Ok(Confirmation::NotRequested)) => {
                session.give_up("a channel was not in confirm mode");
                Err(BrokerError::Unconfirmed(ours()))
            }
            Ok(Err(error)) => {
                session.give_up(error.to_string());
                Err(error.into())
            }
            // A broker short of memory holds confirms back on a connection that is sound.
            Err(_) if session.is_blocked() => continue,
            Err(_) => {
                session.give_up(format!("no confirm within {} s", CONFIRM.as_secs()));
                Err(BrokerError::Unconfirmed(ours()))
            }
        };
    }
}
