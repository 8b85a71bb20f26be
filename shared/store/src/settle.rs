//! Money at the end: of jobs, in the transaction that ends them, and of chat calls.
//!
//! A call without a cap above it has no reservation: its one charge, usage row and sums are written here for the first time. A
//! call with one ends it. Either way a repetition changes nothing.

use std::collections::{BTreeMap, HashMap};

use aig_domain::job::{ErrorCode, Job, JobStatus};
use aig_domain::price::Used;
use aig_domain::task::Phase;
use aig_domain::{Millis, Month};

use crate::balances::{self, Change, Changes};
use crate::db::Tx;
use crate::finish::{Item, JobEnd};
use crate::ledger_rows::{LedgerRow, insert_charges};
use crate::requests::{self, RequestOutcome, RequestRow};
use crate::reservations::{self, Ended, Ending, MoneyEnd};
use crate::{Store, StoreError};

/// The end of a chat call.
#[derive(Clone, Debug)]
pub struct CallEnd {
    /// The request's id.
    pub id: String,
    /// Whether it has a reservation.
    pub reserved: bool,
    /// What becomes of the money.
    pub end: MoneyEnd,
    /// When.
    pub at: Millis,
    /// Its usage row; `None` when nobody is there to say what was used.
    pub row: Option<RequestRow>,
}

impl Store {
    /// Writes the end of a chat call. Doing it again changes nothing.
    ///
    /// # Errors
    /// When the store fails; the end may then be written again.
    pub async fn end_call(&self, end: CallEnd) -> Result<(), StoreError> {
        self.finish.submit(Item::Call(Box::new(end))).await.map(drop)
    }
}

/// Writes what `jobs`, each with its task's phase, and `calls` cost.
pub(crate) async fn run(tx: &mut Tx, jobs: &[(&JobEnd, String)], calls: &[&CallEnd]) -> Result<(), StoreError> {
    let mut changes = Changes::default();
    let mut endings: Vec<Ending<'_>> = jobs
        .iter()
        .map(|(JobEnd { job, .. }, phase)| Ending { id: &job.id, end: money_end(job, phase), at: job.updated_at })
        .collect();
    let reserved = calls.iter().filter(|call| call.reserved);
    endings.extend(reserved.map(|call| Ending { id: &call.id, end: call.end, at: call.at }));
    let ended = reservations::end(tx, &endings, &mut changes).await?;
    charge_unreserved(tx, calls, &mut changes).await?;
    let of_jobs: Vec<RequestRow> = jobs.iter().filter_map(|(end, phase)| request_of(&end.job, phase, &ended)).collect();
    // Of an end that came too late, or twice, nothing is written.
    let counts = |call: &&&CallEnd| !call.reserved || ended.get(&call.id).is_some_and(|ended| ended.end == call.end);
    let of_calls = calls.iter().filter(counts).filter_map(|call| call.row.as_ref());
    let rows: BTreeMap<&str, &RequestRow> = of_jobs.iter().chain(of_calls).map(|row| (row.id.as_str(), row)).collect();
    requests::insert(tx, &rows.into_values().collect::<Vec<_>>()).await?;
    balances::apply(tx, &changes).await
}

async fn charge_unreserved(tx: &mut Tx, calls: &[&CallEnd], sums: &mut Changes) -> Result<(), StoreError> {
    let mut charges: HashMap<&str, LedgerRow> = HashMap::new();
    for call in calls.iter().filter(|call| !call.reserved) {
        if let (MoneyEnd::Charge(amount) | MoneyEnd::AtLeast(amount), Some(row)) = (call.end, &call.row) {
            let period = Month::of(row.created_at).number();
            charges.insert(&call.id, LedgerRow::charge(&call.id, row.payer.clone(), period, amount, call.at));
        }
    }
    let mut rows: Vec<LedgerRow> = charges.into_values().collect();
    rows.sort_by(|a, b| a.subject.cmp(&b.subject));
    let new = insert_charges(tx, &rows).await?;
    for row in rows.iter().filter(|row| new.contains(&row.subject)) {
        sums.add(&row.payer, row.period, Change { spent: row.amount.0, requests: 1, ..Change::default() });
    }
    Ok(())
}

/// A completed job is charged, a failed one is not. What a provider may bill all the same stays on record: after a submit
/// whose outcome is not known, unless the provider said no.
fn money_end(job: &Job, phase: &str) -> MoneyEnd {
    use ErrorCode::{ContentRefused, InvalidInput, ProviderError, ProviderOutcomeUnknown};
    match (job.status, job.error.as_ref().map(|error| error.code)) {
        (JobStatus::Completed, _) => MoneyEnd::Charge(job.cost),
        (_, Some(ProviderOutcomeUnknown)) => MoneyEnd::Uncertain,
        (_, Some(ContentRefused | InvalidInput | ProviderError)) => MoneyEnd::Release,
        _ if phase == Phase::Submitting.as_str() => MoneyEnd::Uncertain,
        _ => MoneyEnd::Release,
    }
}

/// The usage row of a job that just ended; `None` for one from before there was money.
fn request_of(job: &Job, phase: &str, ended: &HashMap<String, Ended>) -> Option<RequestRow> {
    let reservation = &ended.get(&job.id)?.row;
    let (payer, _) = reservation.payer()?;
    let (status, outcome) = match (job.error.as_ref().map(|error| error.code), money_end(job, phase)) {
        (None, _) => (200, RequestOutcome::Completed),
        (Some(code), MoneyEnd::Uncertain) => (status_of(code), RequestOutcome::Uncertain),
        (Some(ErrorCode::Cancelled), _) => (status_of(ErrorCode::Cancelled), RequestOutcome::ClientLeft),
        (Some(code), _) => (status_of(code), RequestOutcome::Failed),
    };
    Some(RequestRow {
        id: job.request_id.clone(),
        payer,
        job_id: Some(job.id.clone()),
        model: job.model.clone(),
        provider: job.provider.clone(),
        status,
        outcome,
        created_at: job.created_at,
        duration_ms: u64::try_from(job.created_at.until(job.updated_at).as_millis()).unwrap_or(u64::MAX),
        used: if outcome == RequestOutcome::Completed { job.used() } else { Used::default() },
        estimated: false,
        price: reservation.price.clone(),
        cost: job.cost,
    })
}

/// The HTTP status that the error of a job would have had. 499 is what proxies log for a client that left.
fn status_of(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::Cancelled => 499,
        ErrorCode::InvalidInput | ErrorCode::ContentRefused => 400,
        ErrorCode::DeadlineExceeded => 504,
        ErrorCode::ProviderError | ErrorCode::ProviderOutcomeUnknown => 502,
        ErrorCode::Poison | ErrorCode::Internal => 500,
    }
}
