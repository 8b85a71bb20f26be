//! Accepting jobs: {idempotency row, job, reservation, task} in one transaction, many jobs at a time.

use std::collections::HashMap;

use aig_domain::Millis;
use aig_domain::job::Job;
use aig_domain::task::TaskKind;

use crate::combine::Batch;
use crate::db::{Db, Tx, on};
use crate::enqueue::{NewTask, insert_tasks};
use crate::jobs::{JobRow, job_by_id, job_columns};
use crate::sql::{Rows, padded, with_blanks};
use crate::{Store, StoreError};

/// A job to be accepted, already checked, with status `queued`.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The job.
    pub job: Job,
    /// The id of its task.
    pub task_id: String,
    /// The request's idempotency key, if it sent one.
    pub idempotency: Option<Idempotency>,
}

/// What makes a repeated request the same request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Method and route, such as `POST /v1/audio/music`.
    pub route: &'static str,
    /// The `Idempotency-Key` header.
    pub key: String,
    /// SHA-256 of the body, hex.
    pub body_sha256: String,
    /// How long the key is remembered.
    pub expires_at: Millis,
}

/// What became of a [`NewJob`].
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It is stored.
    New(Box<Job>),
    /// Its key was used before with the same body: this is that job as it now stands.
    Replayed(Box<Job>),
    /// Its key was used before with another body.
    Mismatch,
}

impl Store {
    /// Stores a job with its task. Durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too much is waiting: nothing is stored.
    pub async fn accept_job(&self, new: NewJob) -> Result<Accepted, StoreError> {
        self.accept.submit(new).await
    }
}

pub(crate) struct AcceptBatch;

impl Batch for AcceptBatch {
    type Item = NewJob;
    type Output = Accepted;
    // Jobs of one tenant take their places in its queue one after the other, so that a second transaction would only wait.
    const AT_ONCE: usize = 1;
    const NAME: &'static str = "accept";

    async fn run(&self, tx: &mut Tx, items: &[&NewJob]) -> Result<Vec<Accepted>, StoreError> {
        let earlier = claim_keys(tx, items).await?;
        let mut admitted: Vec<&NewJob> =
            items.iter().filter(|item| !earlier.contains_key(item.job.id.as_str())).copied().collect();
        admitted.sort_by(|a, b| a.job.id.cmp(&b.job.id));
        insert_jobs(tx, &admitted).await?;
        insert_reservations(tx, &admitted).await?;
        let tasks: Vec<NewTask<'_>> = admitted.iter().map(|new| generate(new)).collect();
        insert_tasks(tx, &tasks).await?;
        items
            .iter()
            .map(|item| match earlier.get(item.job.id.as_str()) {
                Some(earlier) => Ok(earlier.clone()),
                None => Ok(Accepted::New(Box::new(item.job.clone()))),
            })
            .collect()
    }

    async fn look_up(&self, db: &Db, item: &NewJob) -> Result<Option<Accepted>, StoreError> {
        Ok(job_by_id(db, &item.job.id).await?.map(|job| Accepted::New(Box::new(job))))
    }
}

/// Keys whose time is over are free again, also before they are cleaned up.
static FORGET_KEYS: Rows = Rows::new(
    "DELETE FROM idempotency WHERE (account_id, route, idem_key) IN \
     (SELECT i.account_id, i.route, i.idem_key FROM (VALUES ",
    &["TEXT", "TEXT", "TEXT", "BIGINT"],
    ") AS v JOIN idempotency i ON i.account_id = v.column1 AND i.route = v.column2 AND i.idem_key = v.column3 \
     WHERE i.expires_at <= v.column4)",
);
const FIND_KEY: &str =
    "SELECT body_sha256, job_id FROM idempotency WHERE account_id = $1 AND route = $2 AND idem_key = $3";
const FIND_JOB: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1");
static CLAIM_KEYS: Rows = Rows::new(
    "INSERT INTO idempotency (account_id, route, idem_key, body_sha256, job_id, expires_at) VALUES ",
    &["TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT"],
    " ON CONFLICT DO NOTHING RETURNING job_id",
);

/// Claims the idempotency keys of `items`. Gives, by job id, the answer of those whose key was taken before.
async fn claim_keys(tx: &mut Tx, items: &[&NewJob]) -> Result<HashMap<String, Accepted>, StoreError> {
    let mut keyed: Vec<(&NewJob, &Idempotency)> =
        items.iter().filter_map(|item| item.idempotency.as_ref().map(|key| (*item, key))).collect();
    // Two processes that insert the same keys in one order cannot deadlock. The sort is stable: first come, first served.
    keyed.sort_by(|(a, x), (b, y)| (&a.job.account_id, x.route, &x.key).cmp(&(&b.job.account_id, y.route, &y.key)));
    for piece in padded(&keyed) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(FORGET_KEYS.sql(piece.len()));
            for (new, key) in &piece {
                query = query.bind(&new.job.account_id).bind(key.route).bind(&key.key).bind(new.job.created_at.0);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    let mut claimed: Vec<String> = Vec::with_capacity(keyed.len());
    for piece in padded(&keyed) {
        let rows: Vec<String> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_scalar(CLAIM_KEYS.sql(piece.len()));
            for (new, key) in &piece {
                query = query
                    .bind(&new.job.account_id)
                    .bind(key.route)
                    .bind(&key.key)
                    .bind(&key.body_sha256)
                    .bind(&new.job.id)
                    .bind(key.expires_at.0);
            }
            query.fetch_all(c).await
        })?;
        claimed.extend(rows);
    }
    let mut earlier = HashMap::new();
    for (new, key) in keyed {
        if !claimed.contains(&new.job.id) {
            earlier.insert(new.job.id.clone(), earlier_answer(tx, items, new, key).await?);
        }
    }
    Ok(earlier)
}

async fn earlier_answer(
    tx: &mut Tx,
    items: &[&NewJob],
    new: &NewJob,
    key: &Idempotency,
) -> Result<Accepted, StoreError> {
    let (body_sha256, job_id): (String, String) = on!(tx.conn(), |c| {
        sqlx::query_as(FIND_KEY).bind(&new.job.account_id).bind(key.route).bind(&key.key).fetch_one(c).await
    })?;
    if body_sha256 != key.body_sha256 {
        return Ok(Accepted::Mismatch);
    }
    // The first may be another item of this very batch, whose row is not written yet.
    if let Some(first) = items.iter().find(|item| item.job.id == job_id) {
        return Ok(Accepted::Replayed(Box::new(first.job.clone())));
    }
    let row: JobRow = on!(tx.conn(), |c| sqlx::query_as(FIND_JOB).bind(&job_id).fetch_one(c).await)?;
    Ok(Accepted::Replayed(Box::new(row.try_into()?)))
}

static INSERT_JOBS: Rows = Rows::new(
    concat!("INSERT INTO jobs (", job_columns!(), ") SELECT * FROM (VALUES "),
    &[
        "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT",
        "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT",
    ],
    ") AS v WHERE column1 IS NOT NULL",
);

async fn insert_jobs(tx: &mut Tx, new: &[&NewJob]) -> Result<(), StoreError> {
    for piece in with_blanks(new) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT_JOBS.sql(piece.len()));
            for job in piece {
                let job = job.map(|new| &new.job);
                query = query
                    .bind(job.map(|job| &job.id))
                    .bind(job.map(|job| &job.account_id))
                    .bind(job.map(|job| &job.key_id))
                    .bind(job.map(|job| &job.request_id))
                    .bind(job.map(|job| job.modality.as_str()))
                    .bind(job.map(|job| &job.model))
                    .bind(job.map(|job| &job.provider))
                    .bind(job.map(|job| job.status.as_str()))
                    .bind(job.map(|job| &job.params))
                    .bind(job.and_then(|job| job.tag.as_ref()))
                    .bind(job.and_then(|job| job.metadata.as_ref()))
                    .bind(job.and_then(|job| job.webhook_url.as_ref()))
                    .bind(job.and_then(|job| job.progress))
                    .bind(job.map(|job| job.created_at.0))
                    .bind(job.map(|job| job.updated_at.0))
                    .bind(None::<i64>)
                    .bind(None::<i64>)
                    .bind(job.map(|job| job.deadline_at.0))
                    .bind(None::<i64>)
                    .bind(None::<String>)
                    .bind(None::<String>)
                    .bind(None::<String>)
                    .bind(job.map(|job| job.cost.0))
                    .bind(job.map(|job| job.version));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

static INSERT_RESERVATIONS: Rows = Rows::new(
    "INSERT INTO reservations (id, account_id, amount, created_at, state) SELECT * FROM (VALUES ",
    &["TEXT", "TEXT", "BIGINT", "BIGINT", "TEXT"],
    ") AS v WHERE column1 IS NOT NULL",
);

async fn insert_reservations(tx: &mut Tx, new: &[&NewJob]) -> Result<(), StoreError> {
    for piece in with_blanks(new) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT_RESERVATIONS.sql(piece.len()));
            for job in piece {
                let job = job.map(|new| &new.job);
                query = query
                    .bind(job.map(|job| &job.id))
                    .bind(job.map(|job| &job.account_id))
                    .bind(job.map(|_| 0_i64))
                    .bind(job.map(|job| job.created_at.0))
                    .bind(job.map(|_| "held"));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

fn generate(new: &NewJob) -> NewTask<'_> {
    NewTask {
        id: &new.task_id,
        kind: TaskKind::Generate,
        queue: new.job.modality.as_str(),
        ref_id: &new.job.id,
        account_id: &new.job.account_id,
        run_at: new.job.created_at,
        claim: None,
    }
}
