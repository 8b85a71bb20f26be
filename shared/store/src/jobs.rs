//! Jobs as rows: writing new ones and reading them. [`crate::steps`] and [`crate::finish`] change them.

use aig_domain::catalog::Modality;
use aig_domain::job::{ErrorCode, Job, JobError, JobStatus};
use aig_domain::{Millis, Nano};
use sqlx::FromRow;

use crate::db::{Db, Tx, on};
use crate::sql::{Rows, padded, with_blanks};
use crate::{Store, StoreError};

/// The columns of a job, in the order of [`crate::accept`]'s insert.
macro_rules! job_columns {
    () => {
        job_columns!("params")
    };
    ($params:literal) => {
        concat!(
            "id, account_id, key_id, request_id, modality, model, provider, status, ",
            $params,
            ", tag, metadata, webhook_url, progress, created_at, updated_at, completed_at, cancelled_at, deadline_at, \
             expires_at, error_code, error_message, result, cost, version, \
             price, payer_id"
        )
    };
}
pub(crate) use job_columns;

#[derive(FromRow)]
pub(crate) struct JobRow {
    id: String,
    account_id: String,
    key_id: String,
    request_id: String,
    modality: String,
    model: String,
    provider: String,
    status: String,
    params: String,
    tag: Option<String>,
    metadata: Option<String>,
    webhook_url: Option<String>,
    progress: Option<i64>,
    created_at: i64,
    updated_at: i64,
    completed_at: Option<i64>,
    cancelled_at: Option<i64>,
    deadline_at: i64,
    expires_at: Option<i64>,
    error_code: Option<String>,
    error_message: Option<String>,
    result: Option<String>,
    cost: i64,
    version: i64,
    price: Option<i64>,
    payer_id: Option<String>,
}

impl TryFrom<JobRow> for Job {
    type Error = StoreError;

    fn try_from(row: JobRow) -> Result<Self, StoreError> {
        let corrupt = |column: &str| StoreError::Corrupt(format!("job {}: unknown {column}", row.id));
        let error = row
            .error_code
            .as_deref()
            .map(|word| ErrorCode::parse(word).ok_or_else(|| corrupt("error_code")))
            .transpose()?
            .map(|code| JobError::new(code, row.error_message.clone().unwrap_or_default()));
        let result =
            row.result.as_deref().map(|text| serde_json::from_str(text).map_err(|_| corrupt("result"))).transpose()?;
        Ok(Self {
            modality: Modality::parse(&row.modality).ok_or_else(|| corrupt("modality"))?,
            status: JobStatus::parse(&row.status).ok_or_else(|| corrupt("status"))?,
            error,
            result,
            id: row.id,
            payer_id: row.payer_id.unwrap_or_else(|| row.account_id.clone()),
            price: Nano(row.price.unwrap_or(0)),
            account_id: row.account_id,
            key_id: row.key_id,
            request_id: row.request_id,
            model: row.model,
            provider: row.provider,
            params: row.params,
            tag: row.tag,
            metadata: row.metadata,
            webhook_url: row.webhook_url,
            progress: row.progress,
            created_at: Millis(row.created_at),
            updated_at: Millis(row.updated_at),
            completed_at: row.completed_at.map(Millis),
            cancelled_at: row.cancelled_at.map(Millis),
            deadline_at: Millis(row.deadline_at),
            expires_at: row.expires_at.map(Millis),
            cost: Nano(row.cost),
            version: row.version,
        })
    }
}

/// One page of jobs, newest first.
#[derive(Debug)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Whether there are older ones.
    pub has_more: bool,
}

const OF_ACCOUNT: &str =
    concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1 AND (account_id = $2 OR payer_id = $2)");
const BY_ID: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1");
const CREATED_AT: &str = "SELECT created_at FROM jobs WHERE id = $1 AND (account_id = $2 OR payer_id = $2)";
// A page shows no params, and each may be as large as a body.
macro_rules! page {
    ($of:literal, $status:literal) => {
        concat!(
            "SELECT ",
            job_columns!("'' AS params"),
            " FROM jobs WHERE ",
            $of,
            " = $1 AND (created_at < $2 OR (created_at = $2 AND id < $3))",
            $status,
            " ORDER BY created_at DESC, id DESC LIMIT $4"
        )
    };
}

/// Whose jobs are listed.
#[derive(Clone, Copy, Debug)]
pub enum JobsOf<'a> {
    /// An account's, and those of all its sub-accounts.
    Account(&'a str),
    /// A sub-account's.
    SubAccount(&'a str),
}

impl JobsOf<'_> {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Account(id) | Self::SubAccount(id) => id,
        }
    }

    fn page(&self, of_status: bool) -> &'static str {
        match (self, of_status) {
            (Self::Account(_), false) => page!("payer_id", ""),
            (Self::Account(_), true) => page!("payer_id", " AND status = $5"),
            (Self::SubAccount(_), false) => page!("account_id", ""),
            (Self::SubAccount(_), true) => page!("account_id", " AND status = $5"),
        }
    }
}

impl Store {
    /// The job `job_id` of `account_id` or of one of its sub-accounts; `None` when there is none or it belongs to somebody else.
    pub async fn job(&self, account_id: &str, job_id: &str) -> Result<Option<Job>, StoreError> {
        let row: Option<JobRow> = on!(self.db.read(), |pool| {
            sqlx::query_as(OF_ACCOUNT).bind(job_id).bind(account_id).fetch_optional(pool).await
        })?;
        row.map(Job::try_from).transpose()
    }

    /// The job `job_id`, whoever it belongs to: for a link whose token is the authorisation.
    pub async fn job_for_file(&self, job_id: &str) -> Result<Option<Job>, StoreError> {
        job_by_id(&self.db, job_id).await
    }

    /// At most `limit` of the jobs, newest first, older than the job `after`, without their params. `None` when
    /// `after` is not one of them.
    pub async fn list_jobs(
        &self,
        of: JobsOf<'_>,
        status: Option<JobStatus>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<JobPage>, StoreError> {
        let created_at: i64 = match after {
            None => i64::MAX,
            Some(id) => {
                let found: Option<i64> = on!(self.db.read(), |pool| {
                    sqlx::query_scalar(CREATED_AT).bind(id).bind(of.id()).fetch_optional(pool).await
                })?;
                let Some(created_at) = found else { return Ok(None) };
                created_at
            }
        };
        let (after, rows) = (after.unwrap_or(""), i64::from(limit) + 1);
        let mut rows: Vec<JobRow> = on!(self.db.read(), |pool| {
            let mut query =
                sqlx::query_as(of.page(status.is_some())).bind(of.id()).bind(created_at).bind(after).bind(rows);
            if let Some(status) = status {
                query = query.bind(status.as_str());
            }
            query.fetch_all(pool).await
        })?;
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let jobs = rows.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
        Ok(Some(JobPage { jobs, has_more }))
    }
}

static VERSIONS: Rows = Rows::new("SELECT id, version FROM jobs WHERE id IN (", &["TEXT"], ")");

impl Store {
    /// The versions of these jobs, by id, in no order; a job that is not there is left out.
    pub async fn job_versions(&self, ids: &[String]) -> Result<Vec<(String, i64)>, StoreError> {
        let mut versions = Vec::with_capacity(ids.len());
        for piece in padded(ids) {
            let found: Vec<(String, i64)> = on!(self.db.read(), |pool| {
                let mut query = sqlx::query_as(VERSIONS.sql(piece.len()));
                for id in &piece {
                    query = query.bind(id);
                }
                query.fetch_all(pool).await
            })?;
            versions.extend(found);
        }
        Ok(versions)
    }
}

pub(crate) async fn job_by_id(db: &Db, job_id: &str) -> Result<Option<Job>, StoreError> {
    let row: Option<JobRow> = on!(db.read(), |pool| sqlx::query_as(BY_ID).bind(job_id).fetch_optional(pool).await)?;
    row.map(Job::try_from).transpose()
}

static INSERT: Rows = Rows::new(
    concat!("INSERT INTO jobs (", job_columns!(), ") SELECT * FROM (VALUES "),
    &[
        "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT",
        "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT",
        "BIGINT", "TEXT",
    ],
    ") AS v WHERE column1 IS NOT NULL",
);

/// Writes jobs that were just accepted.
pub(crate) async fn insert(tx: &mut Tx, new: &[&Job]) -> Result<(), StoreError> {
    for piece in with_blanks(new) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT.sql(piece.len()));
            for job in piece {
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
                    .bind(job.map(|job| job.version))
                    .bind(job.map(|job| job.price.0))
                    .bind(job.map(|job| &job.payer_id));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}
