//! The ledger's tokens: the only place that mints reservations. What they stand for is written by [`crate::accept`] and ended by
//! [`crate::settle`].

use aig_domain::Nano;
use aig_domain::budget::{Billing, Intent, Receipt, Reservation};
use aig_domain::job::Job;
use aig_domain::task::Phase;

use crate::db::on;
use crate::{Store, StoreError};

/// Mints reservations and consumes receipts.
#[derive(Clone, Debug, Default)]
pub struct Ledger(());

/// What a claim entitles its worker to.
#[derive(Debug)]
pub enum Claim {
    /// No submit was recorded: this reservation pays for one.
    Fresh(Reservation),
    /// The provider has the work under this id: poll it, never submit again.
    Resume(String),
    /// A submit was recorded and its outcome was not.
    Unknown(Intent),
}

impl Ledger {
    /// The reservation of a chat call that nobody's cap stands above: it has no row, and may cost what it costs.
    pub fn uncapped_call(&self, request_id: &str) -> Reservation {
        Self::mint(request_id, Nano::ZERO)
    }

    /// Counts a submit of a job. The job's reservation stays held until the job ends.
    #[expect(clippy::needless_pass_by_value, reason = "a receipt ends here")]
    pub fn record_submit(&self, receipt: Receipt) {
        count("job", receipt.billing());
    }

    /// Consumes the receipt of a chat call; gives what it says.
    pub fn receive_call(&self, receipt: Receipt) -> Billing {
        count("chat", receipt.billing());
        receipt.into_billing()
    }

    /// What the holder of a fresh lease on a job's task may do.
    pub(crate) fn claim(job: &Job, phase: Phase, provider_task: Option<String>) -> Claim {
        match (phase, provider_task) {
            (Phase::New, None) => Claim::Fresh(Self::mint(&job.id, job.price)),
            (_, Some(task)) => Claim::Resume(task),
            (_, None) => Claim::Unknown(Intent::new(Self::mint(&job.id, job.price))),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the ledger is the one that mints")]
    pub(crate) fn mint(id: &str, amount: Nano) -> Reservation {
        Reservation::mint(id.to_owned(), amount)
    }
}

fn count(kind: &'static str, billing: &Billing) {
    let billing = match billing {
        Billing::NotSent => "not_sent",
        Billing::Refused => "refused",
        Billing::MaybeBilled => "maybe_billed",
        Billing::Billed(_) => "billed",
    };
    metrics::counter!("aig_provider_calls_total", "kind" => kind, "billing" => billing).increment(1);
}

impl Store {
    /// Where the reservation of a job stands: `held`, `settled`, `released` or `uncertain`.
    pub async fn reservation_state(&self, job_id: &str) -> Result<Option<String>, StoreError> {
        let state = on!(self.db.read(), |pool| {
            sqlx::query_scalar("SELECT state FROM reservations WHERE id = $1").bind(job_id).fetch_optional(pool).await
        })?;
        Ok(state)
    }
}
