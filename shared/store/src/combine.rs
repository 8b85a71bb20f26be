//! The write combiner: what waits while commits are under way becomes the next transaction. No timer.
//!
//! On PostgreSQL two transactions of a lane may be under way ([`Batch::AT_ONCE`]), so that one can work while the other waits for
//! the disk; on SQLite, which has one writer, one. What a caller that gave up has left in line may then be overtaken, except by a
//! [`Batch::barrier`].
//!
//! A lane takes at most [`MAX_ROWS`] items per transaction. A caller that goes away does not cancel its item. When the
//! database refuses a batch because of one row, the items run one by one; a deadlock, a serialization failure or a
//! connection that breaks before the commit reruns the batch; after a commit whose outcome is not known every item is looked
//! up before anything is written again.
//!
//! With PostgreSQL no caller waits for longer than [`PATIENCE`], whatever the network does; an item that nobody waits for
//! any more is not begun.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db::{Db, Tx};
use crate::postgres::no_answer;
use crate::sql::MAX_ROWS;
use crate::{StoreError, dialect};

/// How often a batch is rerun before its callers hear of it.
const RERUNS: u32 = 5;
/// A batch that loses its connection this soon, before its commit, is rerun on another: the server restarts, or one
/// connection broke.
const RECONNECT: Duration = Duration::from_secs(1);
/// For how long an ambiguous commit is asked about while the database comes back, and the wait in between.
const LOOK_UP_FOR: Duration = Duration::from_secs(4);
const LOOK_UP_WAIT: Duration = Duration::from_millis(500);
/// How long a caller waits for PostgreSQL: for the batch before its own, and for its own. Either takes seconds only when the
/// server stops answering in the middle of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a lane does with a batch.
pub(crate) trait Batch: Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Output: Send + 'static;
    /// The lane's name, for metrics and errors.
    const NAME: &'static str;

    /// How many transactions of the lane are under way at once, on PostgreSQL.
    const AT_ONCE: usize = 2;

    /// Does all items in one transaction; gives one output per item, in order.
    fn run(
        &self,
        tx: &mut Tx,
        items: &[&Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Output>, StoreError>> + Send;

    /// After a commit whose outcome is not known: the output if `item` was committed, `None` if it was not.
    fn look_up(
        &self,
        db: &Db,
        item: &Self::Item,
    ) -> impl Future<Output = Result<Option<Self::Output>, StoreError>> + Send;

    /// Whether `item` must not overtake what stood in line before it.
    fn barrier(_: &Self::Item) -> bool {
        false
    }

    /// Whether `item` may be run again when it was not found: the first commit may still come through after that.
    fn may_repeat(&self, _: &Self::Item) -> bool {
        true
    }
}

/// An item in line with whoever waits for it.
struct Waiting<B: Batch> {
    item: B::Item,
    answer: oneshot::Sender<Result<B::Output, StoreError>>,
    since: Instant,
}

/// A bounded lane of writes of one kind.
pub(crate) struct Lane<B: Batch> {
    sender: mpsc::Sender<Waiting<B>>,
    /// How long a caller waits; `None` for the embedded database, which no network can cut off.
    patience: Option<Duration>,
    closing: CancellationToken,
    closed: CancellationToken,
}

impl<B: Batch> Clone for Lane<B> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            patience: self.patience,
            closing: self.closing.clone(),
            closed: self.closed.clone(),
        }
    }
}

impl<B: Batch> Lane<B> {
    /// Starts the lane's task on `tracker`.
    pub(crate) fn spawn(batch: B, db: Db, capacity: usize, tracker: &TaskTracker) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Waiting<B>>(capacity);
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let (stop, done) = (closing.clone(), closed.clone().drop_guard());
        let patience = (!db.is_sqlite()).then_some(PATIENCE);
        let at_once = if db.is_sqlite() { 1 } else { B::AT_ONCE };
        let batch = Arc::new(batch);
        tracker.spawn(async move {
            let _done = done;
            let mut waiting = Vec::with_capacity(MAX_ROWS);
            let mut under_way = JoinSet::new();
            loop {
                while under_way.len() >= at_once {
                    under_way.join_next().await;
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled(), if !receiver.is_closed() => {
                        receiver.close();
                        continue;
                    }
                    taken = receiver.recv_many(&mut waiting, MAX_ROWS) => if taken == 0 { break },
                }
                let (stale, fresh) = std::mem::take(&mut waiting)
                    .into_iter()
                    .partition::<Vec<_>, _>(|item| patience.is_some_and(|patience| item.since.elapsed() >= patience));
                for Waiting { answer, .. } in stale {
                    let _ = answer.send(Err(no_answer().into()));
                }
                if fresh.is_empty() {
                    continue;
                }
                if fresh.iter().any(|waiting| B::barrier(&waiting.item)) {
                    while under_way.join_next().await.is_some() {}
                }
                metrics::histogram!("aig_store_batch_items", "lane" => B::NAME)
                    .record(u32::try_from(fresh.len()).unwrap_or(u32::MAX));
                let (batch, db) = (Arc::clone(&batch), db.clone());
                under_way.spawn(async move {
                    // A panic in a batch must not take the lane down: its callers see a dropped answer, the next batch runs.
                    if AssertUnwindSafe(work(&*batch, &db, fresh)).catch_unwind().await.is_err() {
                        tracing::error!(lane = B::NAME, "a batch panicked; its items were not written");
                    }
                });
            }
            while under_way.join_next().await.is_some() {}
        });
        Self { sender, patience, closing, closed }
    }

    /// Puts `item` in line and waits for its output.
    pub(crate) async fn submit(&self, item: B::Item) -> Result<B::Output, StoreError> {
        let (answer, output) = oneshot::channel();
        self.sender.try_send(Waiting { item, answer, since: Instant::now() }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Full(B::NAME),
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        let output = match self.patience {
            Some(patience) => timeout(patience, output).await.map_err(|_| unknown(no_answer()))?,
            None => output.await,
        };
        output.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more items and waits until those in line are done.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }
}

async fn work<B: Batch>(batch: &B, db: &Db, waiting: Vec<Waiting<B>>) {
    let (items, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(|waiting| (waiting.item, waiting.answer)).unzip();
    let refs: Vec<&B::Item> = items.iter().collect();
    let results = match attempt(batch, db, &refs).await {
        Ok(outputs) => outputs.into_iter().map(Ok).collect(),
        Err(Failure::CommitUnknown(error)) => look_up_each(batch, db, &refs, &error).await,
        Err(Failure::Nothing(StoreError::Database { source, .. }))
            if dialect::is_row_fault(&source) && refs.len() > 1 =>
        {
            tracing::warn!(lane = B::NAME, error = %source, "a batch was refused; its items run one by one");
            let mut results = Vec::with_capacity(refs.len());
            for item in &refs {
                results.push(alone(batch, db, item).await);
            }
            results
        }
        Err(Failure::Nothing(error)) => same_for_all(refs.len(), &error),
    };
    for (answer, result) in answers.into_iter().zip(results) {
        // The caller may be gone; its item is done all the same.
        let _ = answer.send(result);
    }
}

/// Why a batch was not committed for certain.
enum Failure {
    /// Nothing was written.
    Nothing(StoreError),
    /// The commit was sent; whether it happened is not known.
    CommitUnknown(sqlx::Error),
}

impl<E: Into<StoreError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Nothing(error.into())
    }
}

async fn attempt<B: Batch>(batch: &B, db: &Db, items: &[&B::Item]) -> Result<Vec<B::Output>, Failure> {
    let (mut reruns, begun) = (0, Instant::now());
    loop {
        let failure = match once(batch, db, items).await {
            Ok(outputs) => return Ok(outputs),
            Err(failure) => failure,
        };
        let again = |error: &sqlx::Error| {
            dialect::is_rerun(error) || dialect::is_lost_connection(error) && begun.elapsed() < RECONNECT
        };
        match &failure {
            Failure::Nothing(StoreError::Database { source, .. }) if reruns < RERUNS && again(source) => reruns += 1,
            _ => return Err(failure),
        }
    }
}

async fn once<B: Batch>(batch: &B, db: &Db, items: &[&B::Item]) -> Result<Vec<B::Output>, Failure> {
    let mut tx = db.begin().await?;
    let outputs = match batch.run(&mut tx, items).await {
        Ok(outputs) => outputs,
        Err(error) => {
            // What is not undone here goes with its connection.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    match tx.commit().await {
        Ok(()) => Ok(outputs),
        Err(error) if dialect::is_clear_no(&error) => Err(error.into()),
        Err(error) => Err(Failure::CommitUnknown(error)),
    }
}

async fn alone<B: Batch>(batch: &B, db: &Db, item: &B::Item) -> Result<B::Output, StoreError> {
    match attempt(batch, db, &[item]).await {
        Ok(outputs) => only(outputs),
        Err(Failure::Nothing(error)) => Err(error),
        Err(Failure::CommitUnknown(error)) => {
            look_up_or_repeat(batch, db, item, error, Instant::now() + LOOK_UP_FOR).await
        }
    }
}

fn only<T>(outputs: Vec<T>) -> Result<T, StoreError> {
    outputs.into_iter().next().ok_or_else(|| StoreError::Corrupt("a batch of one gave nothing".into()))
}

async fn look_up_each<B: Batch>(
    batch: &B,
    db: &Db,
    items: &[&B::Item],
    error: &sqlx::Error,
) -> Vec<Result<B::Output, StoreError>> {
    tracing::warn!(lane = B::NAME, %error, items = items.len(), "the outcome of a commit is not known; looking it up");
    let until = Instant::now() + LOOK_UP_FOR;
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        results.push(look_up_or_repeat(batch, db, item, copy(error), until).await);
    }
    results
}

/// The output of `item` if it was committed; runs it alone if it was not.
///
/// The lost commit may come through at any moment: after the look-up that did not find it, even while the repetition
/// waits for the locks that it holds. So a repetition that fails proves nothing, least of all one that meets its own row:
/// the item is looked up again. And what a repetition finds done already, such as a task that is not held any more, may
/// have been done by the first commit, so that the look-up has the last word there too. Who was neither found nor repeated
/// is told that the outcome is unknown, never that nothing was done.
async fn look_up_or_repeat<B: Batch>(
    batch: &B,
    db: &Db,
    item: &B::Item,
    mut error: sqlx::Error,
    until: Instant,
) -> Result<B::Output, StoreError> {
    let mut repeated = None;
    while Instant::now() < until {
        match timeout_at(until, batch.look_up(db, item)).await {
            Ok(Ok(Some(output))) => return Ok(output),
            Ok(Ok(None)) => {
                if let Some(output) = repeated.take() {
                    return Ok(output);
                }
                if !batch.may_repeat(item) {
                    break;
                }
                match once(batch, db, &[item]).await {
                    Ok(outputs) => {
                        repeated = Some(only(outputs)?);
                        continue;
                    }
                    Err(Failure::CommitUnknown(again)) => error = again,
                    Err(Failure::Nothing(failed)) => {
                        tracing::warn!(lane = B::NAME, error = %failed, "the repetition failed; looking it up again");
                    }
                }
            }
            Ok(Err(still_down)) => tracing::warn!(lane = B::NAME, error = %still_down, "the look-up failed"),
            Err(_) => break,
        }
        sleep(LOOK_UP_WAIT).await;
    }
    Err(unknown(error))
}

fn unknown(source: sqlx::Error) -> StoreError {
    StoreError::Database { source, commit_unknown: true }
}

fn same_for_all<T>(count: usize, error: &StoreError) -> Vec<Result<T, StoreError>> {
    let each = || match error {
        StoreError::Database { source, commit_unknown } => {
            StoreError::Database { source: copy(source), commit_unknown: *commit_unknown }
        }
        other => StoreError::Corrupt(other.to_string()),
    };
    (0..count).map(|_| Err(each())).collect()
}

/// The same failure for another caller: sqlx's errors cannot be cloned, their words can.
fn copy(error: &sqlx::Error) -> sqlx::Error {
    sqlx::Error::Io(match error {
        sqlx::Error::Io(error) => std::io::Error::new(error.kind(), error.to_string()),
        other => std::io::Error::other(other.to_string()),
    })
}
