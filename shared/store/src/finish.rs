//! The lane of ends: {task done, job terminal, result, reservation settled or released, usage row, event and its webhook task} in
//! one transaction, guarded by the lease's epoch. Webhook attempts, which end or put off their task, go the same way, and so
//! do the ends of chat calls.

use std::collections::HashMap;

use aig_domain::Millis;
use aig_domain::job::{ErrorCode, Job};
use aig_domain::task::{Lease, TaskKind, WEBHOOK_QUEUE};

use crate::accounts::{self, WebhookSecrets};
use crate::combine::Batch;
use crate::db::{Db, Tx, on};
use crate::enqueue::{NewTask, TaskClaim, insert_tasks};
use crate::jobs::job_by_id;
use crate::settle::{self, CallEnd};
use crate::sql::{Rows, padded};
use crate::webhooks::{insert_attempts, insert_events, update_events};
use crate::{Store, StoreError};

/// The end of a job.
#[derive(Clone, Debug)]
pub struct JobEnd {
    /// By which right it is ended.
    pub target: JobEndTarget,
    /// The job as it reads from now on: [`Job::ended`].
    pub job: Job,
    /// What its webhook receives, if it has one.
    pub event: Option<NewEvent>,
}

impl JobEnd {
    /// Whether the delivery of its event is claimed with it.
    fn claims_delivery(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.claim.is_some())
    }
}

/// By which right a job is ended.
#[derive(Clone, Debug)]
pub enum JobEndTarget {
    /// By the worker that holds its task.
    Lease(Lease),
    /// By its owner, whoever holds the task.
    Cancel,
}

/// The one event of a job.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// `evt_…`
    pub id: String,
    /// The id of the task that delivers it.
    pub task_id: String,
    /// Where it goes.
    pub url: String,
    /// The exact bytes of every attempt.
    pub body: String,
    /// Who delivers it at once; nobody: then it is ready for whoever claims it.
    pub claim: Option<TaskClaim>,
}

/// That a job was ended by this very call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Won {
    /// The worker that held its task, when it was cancelled under it.
    pub worker: Option<String>,
    /// The provider's id of the cancelled work.
    pub provider_task: Option<String>,
    /// What signs its event, when that was claimed with the end.
    pub secrets: Option<WebhookSecrets>,
}

/// One attempt at delivering a webhook event.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The right to write it.
    pub lease: Lease,
    /// Which event.
    pub event_id: String,
    /// How it went.
    pub attempt: Attempt,
    /// What follows.
    pub end: DeliveryEnd,
}

/// How one attempt went.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub at: Millis,
    /// How long it took.
    pub duration_ms: u64,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// Why it failed, for the operator.
    pub error: Option<String>,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// The receiver took it.
    Delivered,
    /// No further attempt.
    GaveUp,
    /// Another attempt at this time.
    Retry(Millis),
}

impl Store {
    /// Ends a job. `None` when the lease was lost or the job had ended before: then nothing was written.
    pub async fn end_job(&self, end: JobEnd) -> Result<Option<Won>, StoreError> {
        self.finish.submit(Item::Job(Box::new(end))).await
    }

    /// Records an attempt at a webhook. `false` when the lease was lost.
    pub async fn record_delivery(&self, delivery: Delivery) -> Result<bool, StoreError> {
        Ok(self.finish.submit(Item::Delivery(Box::new(delivery))).await?.is_some())
    }
}

pub(crate) enum Item {
    Job(Box<JobEnd>),
    Delivery(Box<Delivery>),
    Call(Box<CallEnd>),
}

impl Item {
    fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Job(end) => match &end.target {
                JobEndTarget::Lease(lease) => Some(lease),
                JobEndTarget::Cancel => None,
            },
            Self::Delivery(delivery) => Some(&delivery.lease),
            Self::Call(_) => None,
        }
    }
}

pub(crate) struct FinishBatch;

impl Batch for FinishBatch {
    type Item = Item;
    type Output = Option<Won>;
    const NAME: &'static str = "finish";

    async fn run(&self, tx: &mut Tx, items: &[&Item]) -> Result<Vec<Option<Won>>, StoreError> {
        let mut held = end_tasks(tx, items).await?;
        let mut cancelled = cancel_tasks(tx, items).await?;
        let (mut outputs, mut ends, mut deliveries) = (Vec::with_capacity(items.len()), Vec::new(), Vec::new());
        for item in items {
            // Each right is taken out with its first use: of two items of one batch under one lease, the first one wins.
            let won = match (item, item.lease()) {
                (_, Some(lease)) => held.remove(lease).map(|phase| (Won::default(), phase)),
                (Item::Job(end), None) => cancelled.remove(&end.job.id),
                (Item::Delivery(_) | Item::Call(_), None) => None,
            };
            match (item, &won) {
                (Item::Job(end), Some((_, phase))) => ends.push((&**end, phase.clone())),
                (Item::Delivery(delivery), Some(_)) => deliveries.push(&**delivery),
                (_, None) | (Item::Call(_), _) => {}
            }
            outputs.push(won.map(|(won, _)| won));
        }
        ends.sort_by(|(a, _), (b, _)| a.job.id.cmp(&b.job.id));
        let calls: Vec<&CallEnd> =
            items.iter().filter_map(|item| if let Item::Call(end) = item { Some(&**end) } else { None }).collect();
        settle::run(tx, &ends, &calls).await?;
        let ends: Vec<&JobEnd> = ends.into_iter().map(|(end, _)| end).collect();
        end_jobs(tx, &ends).await?;
        enqueue_events(tx, &ends).await?;
        let claiming = ends.iter().filter(|end| end.claims_delivery()).map(|end| end.job.account_id.as_str());
        let secrets = accounts::secrets_of(tx, claiming.collect()).await?;
        for (item, won) in items.iter().zip(&mut outputs) {
            if let (Item::Job(end), Some(won)) = (item, won)
                && end.claims_delivery()
            {
                won.secrets = secrets.get(&end.job.account_id).cloned();
            }
        }
        insert_attempts(tx, &deliveries).await?;
        update_events(tx, &deliveries).await?;
        Ok(outputs)
    }

    async fn look_up(&self, db: &Db, item: &Item) -> Result<Option<Option<Won>>, StoreError> {
        let mut won = Won::default();
        let committed = match item {
            Item::Job(end) => {
                if end.claims_delivery() {
                    won.secrets = accounts::webhook_secrets(db, &end.job.account_id).await?;
                }
                is_ended(db, end).await?
            }
            Item::Delivery(delivery) => {
                let found: Option<i64> = on!(db.read(), |pool| {
                    sqlx::query_scalar("SELECT at FROM webhook_attempts WHERE event_id = $1 AND attempt = $2")
                        .bind(&delivery.event_id)
                        .bind(i64::from(delivery.attempt.number))
                        .fetch_optional(pool)
                        .await
                })?;
                found == Some(delivery.attempt.at.0)
            }
            // Ending it again changes nothing if it was ended.
            Item::Call(_) => false,
        };
        Ok(committed.then_some(Some(won)))
    }
}

/// Whether this very end was committed: its event tells, and without one what the job says.
async fn is_ended(db: &Db, end: &JobEnd) -> Result<bool, StoreError> {
    if let Some(event) = &end.event {
        let found: Option<String> = on!(db.read(), |pool| {
            sqlx::query_scalar("SELECT id FROM webhook_events WHERE id = $1").bind(&event.id).fetch_optional(pool).await
        })?;
        return Ok(found.is_some());
    }
    Ok(job_by_id(db, &end.job.id).await?.is_some_and(|job| {
        let ours = job.status == end.job.status && job.completed_at == end.job.completed_at;
        ours && job.result == end.job.result && job.error == end.job.error
    }))
}

static END_TASKS: Rows = Rows::new(
    "WITH v (id, epoch, state, run_at, attempts, ended_at, error) AS (VALUES ",
    &["TEXT", "BIGINT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "TEXT"],
    ") UPDATE tasks SET state = v.state, run_at = COALESCE(v.run_at, tasks.run_at), \
     attempt = tasks.attempt + v.attempts, ended_at = v.ended_at, last_error = COALESCE(v.error, tasks.last_error) \
     FROM v WHERE tasks.id = v.id AND tasks.lease_epoch = v.epoch \
     AND COALESCE(tasks.state, '') = 'running' \
     RETURNING tasks.id, tasks.lease_epoch, tasks.phase",
);

/// How a task reads afterwards: state, `run_at`, further attempts, `ended_at`, error.
type TaskEnd<'a> = (&'static str, Option<i64>, i64, Option<i64>, Option<&'a str>);

fn task_end(item: &Item) -> Option<(&Lease, TaskEnd<'_>)> {
    let lease = item.lease()?;
    Some((
        lease,
        match item {
            Item::Job(end) => {
                let error = end.job.error.as_ref();
                let buried = error.is_some_and(|error| error.code == ErrorCode::Poison);
                let state = if buried { "buried" } else { "done" };
                (state, None, 0, Some(end.job.updated_at.0), error.map(|error| error.message.as_str()))
            }
            Item::Delivery(delivery) => {
                let error = delivery.attempt.error.as_deref();
                match delivery.end {
                    DeliveryEnd::Retry(at) => ("waiting", Some(at.0), 1, None, error),
                    DeliveryEnd::Delivered | DeliveryEnd::GaveUp => {
                        ("done", None, 1, Some(delivery.attempt.at.0), error)
                    }
                }
            }
            Item::Call(_) => return None,
        },
    ))
}

/// Ends the tasks that are ended by their holders; gives the leases that were still held, each with its task's phase.
async fn end_tasks(tx: &mut Tx, items: &[&Item]) -> Result<HashMap<Lease, String>, StoreError> {
    let mut leased: Vec<(&Lease, TaskEnd<'_>)> = items.iter().filter_map(|item| task_end(item)).collect();
    // The sort is stable, so that of two items under one lease the first one stays.
    leased.sort_by(|(a, _), (b, _)| (&a.task_id, a.epoch).cmp(&(&b.task_id, b.epoch)));
    leased.dedup_by(|(a, _), (b, _)| a == b);
    let mut held = HashMap::with_capacity(leased.len());
    for piece in padded(&leased) {
        let ids: Vec<(String, i64, String)> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(END_TASKS.sql(piece.len()));
            for (lease, (state, run_at, attempts, ended_at, error)) in piece {
                query = query
                    .bind(&lease.task_id)
                    .bind(lease.epoch)
                    .bind(state)
                    .bind(run_at)
                    .bind(attempts)
                    .bind(ended_at)
                    .bind(error);
            }
            query.fetch_all(c).await
        })?;
        held.extend(ids.into_iter().map(|(task_id, epoch, phase)| (Lease { task_id, epoch }, phase)));
    }
    Ok(held)
}

static CANCEL_TASKS: Rows = Rows::new(
    "WITH v (job_id, now) AS (VALUES ",
    &["TEXT", "BIGINT"],
    ") UPDATE tasks SET state = 'done', lease_epoch = tasks.lease_epoch + 1, ended_at = v.now, last_error = 'cancelled' \
     FROM v WHERE tasks.ref_id = v.job_id AND tasks.kind = 'generate' \
     AND tasks.state IN ('ready', 'waiting', 'running') \
     RETURNING tasks.ref_id, tasks.worker, tasks.provider_task, tasks.phase",
);

/// Ends the tasks whose owners cancelled them, whoever holds them; gives those that had not ended, by job, each with its
/// phase.
async fn cancel_tasks(tx: &mut Tx, items: &[&Item]) -> Result<HashMap<String, (Won, String)>, StoreError> {
    let mut jobs: Vec<&Job> = items
        .iter()
        .filter_map(|item| match item {
            Item::Job(end) if matches!(end.target, JobEndTarget::Cancel) => Some(&end.job),
            _ => None,
        })
        .collect();
    jobs.sort_by(|a, b| a.id.cmp(&b.id));
    // Two cancels of one job in one batch: the first one is it.
    jobs.dedup_by(|a, b| a.id == b.id);
    let mut cancelled = HashMap::with_capacity(jobs.len());
    for piece in padded(&jobs) {
        let rows: Vec<(String, Option<String>, Option<String>, String)> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(CANCEL_TASKS.sql(piece.len()));
            for job in &piece {
                query = query.bind(&job.id).bind(job.updated_at.0);
            }
            query.fetch_all(c).await
        })?;
        let by_job = rows
            .into_iter()
            .map(|(job, worker, provider_task, phase)| (job, (Won { worker, provider_task, secrets: None }, phase)));
        cancelled.extend(by_job);
    }
    Ok(cancelled)
}

static END_JOBS: Rows = Rows::new(
    "WITH v (id, status, now, cancelled_at, expires_at, progress, error_code, error_message, result, cost) AS (VALUES ",
    &["TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT"],
    ") UPDATE jobs SET status = v.status, updated_at = v.now, completed_at = v.now, cancelled_at = v.cancelled_at, \
     expires_at = v.expires_at, progress = COALESCE(v.progress, jobs.progress), error_code = v.error_code, \
     error_message = v.error_message, result = v.result, cost = v.cost, version = jobs.version + 1 \
     FROM v WHERE jobs.id = v.id AND jobs.status IN ('queued', 'processing')",
);

async fn end_jobs(tx: &mut Tx, ends: &[&JobEnd]) -> Result<(), StoreError> {
    for piece in padded(ends) {
        let mut results = Vec::with_capacity(piece.len());
        for JobEnd { job, .. } in &piece {
            let text = job.result.as_ref().map(serde_json::to_string).transpose();
            results.push(text.map_err(|error| StoreError::Corrupt(format!("job {}: {error}", job.id)))?);
        }
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(END_JOBS.sql(piece.len()));
            for (JobEnd { job, .. }, result) in piece.iter().zip(results) {
                query = query
                    .bind(&job.id)
                    .bind(job.status.as_str())
                    .bind(job.updated_at.0)
                    .bind(job.cancelled_at.map(|at| at.0))
                    .bind(job.expires_at.map(|at| at.0))
                    .bind(job.progress)
                    .bind(job.error.as_ref().map(|error| error.code.as_str()))
                    .bind(job.error.as_ref().map(|error| error.message.as_str()))
                    .bind(result)
                    .bind(job.cost.0);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

async fn enqueue_events(tx: &mut Tx, ends: &[&JobEnd]) -> Result<(), StoreError> {
    let events: Vec<(&Job, &NewEvent)> =
        ends.iter().filter_map(|end| end.event.as_ref().map(|event| (&end.job, event))).collect();
    insert_events(tx, &events).await?;
    let tasks: Vec<NewTask<'_>> = events
        .iter()
        .map(|(job, event)| NewTask {
            id: &event.task_id,
            kind: TaskKind::Webhook,
            queue: WEBHOOK_QUEUE,
            ref_id: &event.id,
            account_id: &job.account_id,
            run_at: job.updated_at,
            claim: event.claim.as_ref(),
        })
        .collect();
    insert_tasks(tx, &tasks).await
}
