//! The lane of leases: claiming due tasks, and recording how far a claimed one has come.

use std::collections::{BTreeMap, HashMap};

use aig_domain::job::Job;
use aig_domain::task::{Lease, Phase, WEBHOOK_QUEUE};
use sqlx::{AssertSqlSafe, FromRow};

use crate::accounts::WebhookSecrets;
use crate::combine::Batch;
use crate::db::{Db, Tx, on};
use crate::jobs::{JobRow, job_columns};
use crate::ledger::{Claim, Ledger};
use crate::sql::{Rows, padded};
use crate::steps::{self, Step, StepKind};
use crate::{Store, StoreError, dialect, fair, workers};

/// A worker's wish for tasks.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// A fresh id, by which the claim is found again.
    pub claim_id: String,
    /// The claiming worker.
    pub worker: String,
    /// From which queue.
    pub queue: &'static str,
    /// At most this many, up to 64.
    pub limit: u32,
}

/// A task that a worker now holds.
#[derive(Debug)]
pub struct Claimed {
    /// The right to write.
    pub lease: Lease,
    /// How often the work was tried and put off before.
    pub attempt: u32,
    /// How often it brought its worker down.
    pub crash_count: i64,
    /// What there is to do.
    pub work: Work,
}

/// What a claimed task is about.
#[derive(Debug)]
pub enum Work {
    /// Make a job's media.
    Generate {
        /// The job.
        job: Box<Job>,
        /// What may be done next.
        claim: Claim,
    },
    /// Deliver an event.
    Webhook {
        /// The event.
        event: WebhookEvent,
        /// What signs it, as it was when the task was claimed.
        secrets: WebhookSecrets,
    },
}

/// A webhook event to be delivered.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookEvent {
    /// `evt_…`, the same in every attempt.
    pub id: String,
    /// Whose secret signs it.
    pub account_id: String,
    /// The job it tells of.
    pub job_id: String,
    /// Where it goes.
    pub url: String,
    /// The exact bytes to send.
    pub body: String,
}

impl Store {
    /// Claims the best due tasks of a queue; fewer than asked for when there are no more.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        match self.lease.submit(Item::Claim(request)).await? {
            Output::Claimed(tasks) => Ok(tasks),
            Output::Stepped(_) | Output::Ended(_) => Err(mixed_up()),
        }
    }

    /// Records a step of a claimed task. `false` when the lease was lost: then nothing was written, and the caller must
    /// drop the work.
    pub async fn step(&self, step: Step) -> Result<bool, StoreError> {
        match self.lease.submit(Item::Step(Box::new(step))).await? {
            Output::Stepped(held) => Ok(held),
            Output::Claimed(_) | Output::Ended(_) => Err(mixed_up()),
        }
    }

    /// Ends a process's lease at once and puts back the tasks that it still holds, which is no crash; gives how many.
    ///
    /// This stands in one line with the process's own claims: what a claim before it took comes back, also when nobody
    /// waits for that claim any more.
    pub async fn unregister_process(&self, id: &str) -> Result<u64, StoreError> {
        match self.lease.submit(Item::End(id.to_owned())).await? {
            Output::Ended(handed_back) => Ok(handed_back),
            Output::Claimed(_) | Output::Stepped(_) => Err(mixed_up()),
        }
    }
}

fn mixed_up() -> StoreError {
    StoreError::Corrupt("an item of the lease lane got another one's answer".into())
}

pub(crate) enum Item {
    Claim(ClaimRequest),
    Step(Box<Step>),
    /// The end of a process.
    End(String),
}

pub(crate) enum Output {
    Claimed(Vec<Claimed>),
    Stepped(bool),
    Ended(u64),
}

pub(crate) struct LeaseBatch;

impl Batch for LeaseBatch {
    type Item = Item;
    type Output = Output;
    const NAME: &'static str = "lease";

    async fn run(&self, tx: &mut Tx, items: &[&Item]) -> Result<Vec<Output>, StoreError> {
        let steps: Vec<&Step> =
            items.iter().filter_map(|item| if let Item::Step(step) = item { Some(&**step) } else { None }).collect();
        let mut recorded = steps::run(tx, &steps).await?.into_iter();
        let mut outputs = Vec::with_capacity(items.len());
        // Sorted by queue and written at the end, so that two processes never wait for each other crosswise.
        let mut highest: BTreeMap<&'static str, i64> = BTreeMap::new();
        for item in items {
            outputs.push(match item {
                Item::Step(_) => Output::Stepped(recorded.next().unwrap_or(false)),
                Item::Claim(request) => {
                    let rows = claim(tx, request).await?;
                    if let Some(seq) = rows.iter().map(|row| row.fair_seq).max() {
                        let known = highest.entry(request.queue).or_insert(seq);
                        *known = seq.max(*known);
                    }
                    Output::Claimed(with_work(tx, request.queue, rows).await?)
                }
                Item::End(id) => Output::Ended(workers::end(tx, id).await?),
            });
        }
        for (queue, seq) in highest {
            fair::claimed(tx, queue, seq).await?;
        }
        Ok(outputs)
    }

    /// What is handed back must stay so: a step or a claim whose caller has gone must not come after it.
    fn barrier(item: &Item) -> bool {
        match item {
            Item::Step(step) => step.kind == StepKind::Release,
            Item::End(_) => true,
            Item::Claim(_) => false,
        }
    }

    /// A claim is not repeated: if the first one came through after that, its tasks would be in nobody's hands. The worker
    /// hears that the outcome is unknown and has the claim released.
    fn may_repeat(&self, item: &Item) -> bool {
        !matches!(item, Item::Claim(_))
    }

    async fn look_up(&self, db: &Db, item: &Item) -> Result<Option<Output>, StoreError> {
        let mut tx = db.begin().await?;
        Ok(match item {
            Item::Step(step) => steps::is_recorded(&mut tx, step).await?.then_some(Output::Stepped(true)),
            Item::Claim(request) => {
                let rows: Vec<TaskRow> = on!(tx.conn(), |c| {
                    sqlx::query_as(CLAIMED_BY).bind(&request.worker).bind(&request.claim_id).fetch_all(c).await
                })?;
                if rows.is_empty() {
                    None
                } else {
                    Some(Output::Claimed(with_work(&mut tx, request.queue, rows).await?))
                }
            }
            Item::End(_) => None,
        })
    }
}

#[derive(FromRow)]
struct TaskRow {
    id: String,
    ref_id: String,
    phase: String,
    provider_task: Option<String>,
    attempt: i64,
    crash_count: i64,
    lease_epoch: i64,
    fair_seq: i64,
}

macro_rules! task_columns {
    () => {
        "tasks.id, tasks.ref_id, tasks.phase, tasks.provider_task, tasks.attempt, tasks.crash_count, \
         tasks.lease_epoch, tasks.fair_seq"
    };
}

// MATERIALIZED, because a planner that runs the inner SELECT again for each outer row takes a further LIMIT each time.
const CLAIM_HEAD: &str = "WITH picked AS MATERIALIZED (SELECT id FROM tasks WHERE queue = $3 AND state = 'ready' \
     ORDER BY priority, fair_seq, run_at LIMIT $4";
const CLAIM_TAIL: &str = concat!(
    ") UPDATE tasks SET state = 'running', worker = $1, claim_id = $2, lease_epoch = tasks.lease_epoch + 1 \
     FROM picked WHERE tasks.id = picked.id RETURNING ",
    task_columns!()
);
const CLAIMED_BY: &str =
    concat!("SELECT ", task_columns!(), " FROM tasks WHERE worker = $1 AND state = 'running' AND claim_id = $2");

async fn claim(tx: &mut Tx, request: &ClaimRequest) -> Result<Vec<TaskRow>, StoreError> {
    let sql = format!("{CLAIM_HEAD}{}{CLAIM_TAIL}", dialect::skip_locked(tx));
    Ok(on!(tx.conn(), |c| {
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(&request.worker)
            .bind(&request.claim_id)
            .bind(request.queue)
            .bind(i64::from(request.limit.min(64)))
            .fetch_all(c)
            .await
    })?)
}

const BURY: &str = "UPDATE tasks SET state = 'buried', last_error = $2 WHERE id = $1";
static JOBS: Rows = Rows::new(concat!("SELECT ", job_columns!(), " FROM jobs WHERE id IN ("), &["TEXT"], ")");
static EVENTS: Rows = Rows::new(
    "SELECT e.id, e.account_id, e.job_id, e.url, e.body, \
     a.webhook_secret, a.webhook_secret_previous, a.webhook_secret_previous_until \
     FROM webhook_events e JOIN accounts a ON a.id = e.account_id WHERE e.id IN (",
    &["TEXT"],
    ")",
);

#[derive(FromRow)]
struct EventRow {
    #[sqlx(flatten)]
    event: WebhookEvent,
    #[sqlx(flatten)]
    secrets: WebhookSecrets,
}

/// Joins tasks with what they are about.
async fn with_work(tx: &mut Tx, queue: &str, mut rows: Vec<TaskRow>) -> Result<Vec<Claimed>, StoreError> {
    rows.sort_by_key(|row| row.fair_seq);
    let mut jobs: HashMap<String, Job> = HashMap::new();
    let mut events: HashMap<String, EventRow> = HashMap::new();
    for piece in padded(&rows) {
        if queue == WEBHOOK_QUEUE {
            let found: Vec<EventRow> = on!(tx.conn(), |c| {
                let mut query = sqlx::query_as(EVENTS.sql(piece.len()));
                for row in &piece {
                    query = query.bind(&row.ref_id);
                }
                query.fetch_all(c).await
            })?;
            events.extend(found.into_iter().map(|row| (row.event.id.clone(), row)));
        } else {
            let found: Vec<JobRow> = on!(tx.conn(), |c| {
                let mut query = sqlx::query_as(JOBS.sql(piece.len()));
                for row in &piece {
                    query = query.bind(&row.ref_id);
                }
                query.fetch_all(c).await
            })?;
            let readable = found.into_iter().filter_map(|row| Job::try_from(row).ok());
            jobs.extend(readable.map(|job| (job.id.clone(), job)));
        }
    }
    let mut claims = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.id.clone();
        match claimed(row, &mut jobs, &mut events) {
            Ok(claim) => claims.push(claim),
            // Nobody can do anything with this row; it must not stop its neighbours.
            Err(error) => {
                tracing::error!(task = id, %error, "a task cannot be read and is buried");
                on!(tx.conn(), |c| sqlx::query(BURY).bind(&id).bind(error.to_string()).execute(c).await.map(drop))?;
            }
        }
    }
    Ok(claims)
}

fn claimed(
    row: TaskRow,
    jobs: &mut HashMap<String, Job>,
    events: &mut HashMap<String, EventRow>,
) -> Result<Claimed, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("task {}: {what}", row.id));
    let phase = Phase::parse(&row.phase).ok_or_else(|| corrupt("unknown phase"))?;
    let work = if let Some(EventRow { event, secrets }) = events.remove(&row.ref_id) {
        Work::Webhook { event, secrets }
    } else {
        let job = jobs.remove(&row.ref_id).ok_or_else(|| corrupt("its job or event is gone"))?;
        let claim = Ledger::claim(&job, phase, row.provider_task.clone());
        Work::Generate { job: Box::new(job), claim }
    };
    Ok(Claimed {
        attempt: u32::try_from(row.attempt).unwrap_or(u32::MAX),
        crash_count: row.crash_count,
        lease: Lease { task_id: row.id, epoch: row.lease_epoch },
        work,
    })
}
