//! Usage rows as their owner reads them: pages of them, and one request with all that is known of its money.

use std::time::Duration;

use aig_domain::caps::Payer;
use aig_domain::{Millis, Nano, id};
use sqlx::FromRow;

use crate::db::on;
use crate::jobs::JobsOf;
use crate::page::Page;
use crate::payer::PayerRow;
use crate::requests::{RequestOutcome, RequestRow};
use crate::{Store, StoreError};

/// How long after its request a job may have been accepted, and by how much the clocks of two processes may differ.
const SUBMITTED_WITHIN: Duration = Duration::from_mins(2);
const CLOCKS_DIFFER: Duration = Duration::from_secs(10);

/// Which requests are listed.
#[derive(Clone, Copy, Debug)]
pub struct RequestFilter<'a> {
    /// Whose they are.
    pub of: JobsOf<'a>,
    /// Only those of this sub-account.
    pub sub_account_id: Option<&'a str>,
    /// Only those with this tag.
    pub tag: Option<&'a str>,
    /// Only those for this model.
    pub model: Option<&'a str>,
}

/// One request, with what is known of its money.
#[derive(Clone, Debug)]
pub struct RequestDetail {
    /// The request.
    pub request: SeenRequest,
    /// What was reserved for it, if anything was.
    pub reservation: Option<ReservationState>,
    /// What was given back, oldest first.
    pub refunds: Vec<Refund>,
}

/// A request that has a usage row, or none yet.
#[derive(Clone, Debug)]
pub enum SeenRequest {
    /// It has ended.
    Ended(Box<RequestRow>),
    /// It is known by its reservation: it is under way, or nobody knows what became of it.
    Open(OpenRequest),
}

/// A request that is known by its reservation alone.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// `req_…`
    pub id: String,
    /// Who pays.
    pub payer: Payer,
    /// The job that it submitted, if it did.
    pub job_id: Option<String>,
    /// The model's full id.
    pub model: Option<String>,
    /// The provider's name in the configuration.
    pub provider: Option<String>,
    /// When it came.
    pub created_at: Millis,
}

/// How a reservation stands.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ReservationState {
    /// What was reserved, in nano-USD.
    pub amount: i64,
    /// `held`, `settled`, `released` or `uncertain`.
    pub state: String,
}

/// Something that was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// What it is known by.
    pub reference: String,
    /// How much.
    pub amount: Nano,
    /// When.
    pub at: Millis,
}

#[derive(FromRow)]
struct StoredRow {
    id: String,
    #[sqlx(flatten)]
    payer: PayerRow,
    job_id: Option<String>,
    model: String,
    provider: String,
    status: i64,
    outcome: String,
    created_at: i64,
    duration_ms: i64,
    used: String,
    estimated: bool,
    price: Option<String>,
    cost: i64,
}

impl TryFrom<StoredRow> for RequestRow {
    type Error = StoreError;

    fn try_from(row: StoredRow) -> Result<Self, StoreError> {
        let corrupt = |column: &str| StoreError::Corrupt(format!("request {}: unknown {column}", row.id));
        Ok(Self {
            status: u16::try_from(row.status).map_err(|_| corrupt("status"))?,
            outcome: RequestOutcome::parse(&row.outcome).ok_or_else(|| corrupt("outcome"))?,
            used: serde_json::from_str(&row.used).map_err(|_| corrupt("used"))?,
            payer: row.payer.into(),
            id: row.id,
            job_id: row.job_id,
            model: row.model,
            provider: row.provider,
            created_at: Millis(row.created_at),
            duration_ms: u64::try_from(row.duration_ms).unwrap_or(0),
            estimated: row.estimated,
            price: row.price,
            cost: Nano(row.cost),
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, account_id, sub_account_id, key_id, tag, job_id, model, provider, status, outcome, created_at, \
             duration_ms, used, estimated, price, cost FROM requests WHERE ",
            $rest
        )
    };
}

macro_rules! page {
    ($of:literal) => {
        concat!(
            select!(""),
            $of,
            " = $1 AND created_at <= $2 AND (created_at < $2 OR id < $3) \
             AND (CAST($5 AS TEXT) IS NULL OR tag = $5) AND (CAST($6 AS TEXT) IS NULL OR model = $6) \
             AND (CAST($7 AS TEXT) IS NULL OR account_id = $7) ORDER BY created_at DESC, id DESC LIMIT $4"
        )
    };
}

const OF_ACCOUNT: &str = page!("account_id");
const OF_SUB_ACCOUNT: &str = page!("sub_account_id");
const CREATED_AT: &str = "SELECT created_at FROM requests WHERE id = $1 AND (account_id = $2 OR sub_account_id = $2)";
const ONE: &str = select!("id = $1 AND (account_id = $2 OR sub_account_id = $2)");
const RESERVATION: &str = "SELECT amount, state FROM reservations WHERE id = $1 AND period IS NOT NULL";
const REFUNDS: &str = "SELECT ref, amount, created_at FROM ledger WHERE subject = $1 AND kind = 'refund' \
    ORDER BY created_at, ref";
const OPEN_CALL: &str = "SELECT id, account_id, sub_account_id, key_id, tag, created_at, NULL AS job_id, model, \
    provider FROM reservations WHERE id = $1 AND kind = 'chat' AND (account_id = $2 OR sub_account_id = $2)";

// Jobs are not found by the ids of their requests, but those carry their time, and jobs are found by that.
macro_rules! open_job {
    ($of:literal) => {
        concat!(
            "SELECT j.request_id AS id, r.account_id, r.sub_account_id, r.key_id, r.tag, j.created_at, j.id AS job_id, j.model, \
             j.provider FROM jobs j JOIN reservations r ON r.id = j.id AND r.key_id IS NOT NULL WHERE j.",
            $of,
            " = $1 AND j.created_at >= $2 AND j.created_at < $3 AND j.request_id = $4 \
             AND j.status IN ('queued', 'processing') ORDER BY j.created_at, j.id LIMIT 1"
        )
    };
}

const OPEN_JOB_OF_ACCOUNT: &str = open_job!("payer_id");
const OPEN_JOB_OF_SUB_ACCOUNT: &str = open_job!("account_id");

#[derive(FromRow)]
struct OpenRow {
    id: String,
    #[sqlx(flatten)]
    payer: PayerRow,
    created_at: i64,
    job_id: Option<String>,
    model: Option<String>,
    provider: Option<String>,
}

impl From<OpenRow> for OpenRequest {
    fn from(row: OpenRow) -> Self {
        Self {
            id: row.id,
            payer: row.payer.into(),
            job_id: row.job_id,
            model: row.model,
            provider: row.provider,
            created_at: Millis(row.created_at),
        }
    }
}

impl Store {
    /// At most `limit` usage rows, newest first, older than the request `after`; `None` when that is not one of the owner's.
    pub async fn recent_requests(
        &self,
        filter: RequestFilter<'_>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Page<RequestRow>>, StoreError> {
        let owner = filter.of.id();
        let created_at: Option<i64> = match after {
            None => Some(i64::MAX),
            Some(after) => on!(self.db.read(), |pool| {
                sqlx::query_scalar(CREATED_AT).bind(after).bind(owner).fetch_optional(pool).await
            })?,
        };
        let Some(created_at) = created_at else { return Ok(None) };
        let (sql, of, account) = match (filter.of, filter.sub_account_id) {
            (JobsOf::Account(_), None) => (OF_ACCOUNT, owner, None),
            (JobsOf::Account(_), Some(sub_account)) => (OF_SUB_ACCOUNT, sub_account, Some(owner)),
            (JobsOf::SubAccount(_), Some(other)) if other != owner => {
                return Page::of::<StoredRow>(Vec::new(), limit).map(Some);
            }
            (JobsOf::SubAccount(_), _) => (OF_SUB_ACCOUNT, owner, None),
        };
        let rows: Vec<StoredRow> = on!(self.db.read(), |pool| {
            let query = sqlx::query_as(sql).bind(of).bind(created_at).bind(after.unwrap_or(""));
            let query = query.bind(i64::from(limit) + 1).bind(filter.tag).bind(filter.model).bind(account);
            query.fetch_all(pool).await
        })?;
        Page::of(rows, limit).map(Some)
    }

    /// The request `id` of an account, its sub-accounts' included, or of a sub-account; `None` when there is none.
    pub async fn request(&self, of: JobsOf<'_>, id: &str) -> Result<Option<RequestDetail>, StoreError> {
        let request = match self.ended_request(of, id).await? {
            Some(row) => Some(row),
            None => match self.open_request(of, id).await? {
                Some(open) => Some(SeenRequest::Open(open)),
                // It may have ended in between.
                None => self.ended_request(of, id).await?,
            },
        };
        let Some(request) = request else { return Ok(None) };
        let job_id = match &request {
            SeenRequest::Ended(row) => row.job_id.as_deref(),
            SeenRequest::Open(open) => open.job_id.as_deref(),
        };
        let subject = job_id.unwrap_or(id);
        let reservation: Option<ReservationState> =
            on!(self.db.read(), |pool| sqlx::query_as(RESERVATION).bind(subject).fetch_optional(pool).await)?;
        let refunds: Vec<(String, i64, i64)> =
            on!(self.db.read(), |pool| sqlx::query_as(REFUNDS).bind(subject).fetch_all(pool).await)?;
        let refund = |(reference, amount, at)| Refund { reference, amount: Nano(amount), at: Millis(at) };
        let refunds = refunds.into_iter().map(refund).collect();
        Ok(Some(RequestDetail { request, reservation, refunds }))
    }

    async fn ended_request(&self, of: JobsOf<'_>, id: &str) -> Result<Option<SeenRequest>, StoreError> {
        let row: Option<StoredRow> =
            on!(self.db.read(), |pool| sqlx::query_as(ONE).bind(id).bind(of.id()).fetch_optional(pool).await)?;
        row.map(|row| Ok(SeenRequest::Ended(Box::new(row.try_into()?)))).transpose()
    }

    async fn open_request(&self, of: JobsOf<'_>, id: &str) -> Result<Option<OpenRequest>, StoreError> {
        let call: Option<OpenRow> =
            on!(self.db.read(), |pool| sqlx::query_as(OPEN_CALL).bind(id).bind(of.id()).fetch_optional(pool).await)?;
        if let Some(call) = call {
            return Ok(Some(call.into()));
        }
        let Some(at) = id::time(id) else { return Ok(None) };
        let sql = match of {
            JobsOf::Account(_) => OPEN_JOB_OF_ACCOUNT,
            JobsOf::SubAccount(_) => OPEN_JOB_OF_SUB_ACCOUNT,
        };
        let (from, to) = (at.minus(CLOCKS_DIFFER), at.plus(SUBMITTED_WITHIN));
        let job: Option<OpenRow> = on!(self.db.read(), |pool| {
            sqlx::query_as(sql).bind(of.id()).bind(from.0).bind(to.0).bind(id).fetch_optional(pool).await
        })?;
        Ok(job.map(OpenRequest::from))
    }
}
