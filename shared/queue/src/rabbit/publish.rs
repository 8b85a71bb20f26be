//! Publishing: one task sends what waits and hears the confirms.
//!
//! Promises: a publish succeeds only when the broker has confirmed the message it travelled in as routed and stored; it ends
//! within [`CONFIRM`], and at once while there is no connection. Messages of one queue that wait at the same moment become one
//! message for each [`MERGED`] callers, since all it says is that the queue has work; they wait for [`SPACING`] after the last one
//! of their queue, and while [`WINDOW`] are on their way. At most twice [`CAPACITY`] callers wait. A confirm that does not come
//! ends the session. Tests: `tests/suite/publish.rs`, `tests/suite/outages.rs`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::link::Link;
use super::session::Session;
use crate::{BrokerError, Message};

/// How many callers wait to be taken; also how many wait for a confirm.
const CAPACITY: usize = 4096;
/// How many messages of one queue are on their way to the broker at once, and how soon one follows another. One that is sent
/// a little later wakes a worker as well as a hundred that are sent sooner, and costs everybody a hundredth.
const WINDOW: usize = 2;
const SPACING: Duration = Duration::from_millis(5);
/// How many callers one message stands for: a burst has to wake more than one worker.
const MERGED: usize = 16;
/// How many ids a message keeps. They are only a trace, for people.
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
        self.link.check()?;
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
    let mut received = Vec::new();
    let mut waiting = BTreeMap::<usize, Batch>::new();
    let mut on_their_way = FuturesUnordered::new();
    let mut sent: Vec<Sent> = vec![Sent::default(); shared.queues.len()];
    let mut callers = 0;
    loop {
        let room = CAPACITY - callers;
        let due = waiting.keys().filter_map(|queue| sent[*queue].due()).min();
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            Some((queue, answered)) = on_their_way.next() => {
                let queue: usize = queue;
                sent[queue].on_their_way -= 1;
                callers -= answered;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            count = bells.recv_many(&mut received, room), if room > 0 => {
                if count == 0 {
                    return;
                }
                callers += merge(received.drain(..), &mut waiting);
            }
        }
        // A broker that takes nothing, or is away, is told of at once.
        if let Err(error) = link.check() {
            for (_, batch) in std::mem::take(&mut waiting) {
                callers -= batch.answers.len();
                batch.answer(&Err(error.clone()));
            }
        }
        for (queue, sent) in sent.iter_mut().enumerate() {
            if sent.due().is_some_and(|due| due <= Instant::now())
                && let Some(batch) = waiting.remove(&queue)
            {
                *sent = Sent { on_their_way: sent.on_their_way + 1, last: Some(Instant::now()) };
                on_their_way.push(deliver(link.clone(), Arc::clone(&shared), queue, batch));
            }
        }
    }
}

/// What was sent to one queue.
#[derive(Clone, Copy, Default)]
struct Sent {
    on_their_way: usize,
    last: Option<Instant>,
}

impl Sent {
    /// When the next message may be sent; `None` while too many are on their way.
    fn due(self) -> Option<Instant> {
        (self.on_their_way < WINDOW).then(|| self.last.map_or_else(Instant::now, |last| last + SPACING))
    }
}

/// Puts bells into the batches of their queues; gives how many. Who has stopped waiting is left out.
fn merge(bells: impl Iterator<Item = Bell>, batches: &mut BTreeMap<usize, Batch>) -> usize {
    let mut count = 0;
    for bell in bells.filter(|bell| !bell.answer.is_closed()) {
        let batch = batches.entry(bell.queue).or_default();
        batch.trace.extend(bell.trace.into_iter().take(TRACE));
        batch.answers.push(bell.answer);
        count += 1;
    }
    count
}

impl Batch {
    fn answer(self, result: &Result<(), BrokerError>) {
        for answer in self.answers {
            // Who does not wait any more has been told that it is unconfirmed.
            let _ = answer.send(result.clone());
        }
    }
}

/// Sends one batch and answers its callers; gives its queue and their number.
async fn deliver(link: Link, shared: Arc<Shared>, queue: usize, mut batch: Batch) -> (usize, usize) {
    let callers = batch.answers.len();
    let mut trace = std::mem::take(&mut batch.trace);
    let result = match link.session() {
        Ok(session) => {
            let messages = callers.div_ceil(MERGED);
            let share = trace.len().div_ceil(messages).min(TRACE);
            let send = |_| send(&session, &shared, queue, trace.drain(..share.min(trace.len())).collect());
            try_join_all((0..messages).map(send)).await.map(drop)
        }
        Err(error) => Err(error),
    };
    batch.answer(&result);
    (queue, callers)
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
