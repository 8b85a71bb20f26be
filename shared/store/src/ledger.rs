//! The ledger: the only place that mints reservations, and the only one that consumes receipts.
//!
//! Until prices come, reservations are free and unlimited, and a chat call's leaves no row.

use aig_domain::Nano;
use aig_domain::budget::{Billing, Intent, Receipt, Reservation};
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
    /// Reserves the money for one chat call. Free and unlimited for now, hence no I/O.
    ///
    /// # Errors
    /// None yet; a cap will refuse here.
    pub fn reserve_call(&self, request_id: &str) -> Result<Reservation, StoreError> {
        Ok(Self::mint(request_id))
    }

    /// Books what a chat call used.
    pub fn settle_call(&self, receipt: Receipt) {
        self.consume("chat", receipt);
    }

    /// Books a chat call that was given up before its provider answered: what it may cost is not known.
    pub fn abandon_call(&self, request_id: &str) {
        self.consume("chat", Self::mint(request_id).receipt(Billing::MaybeBilled));
    }

    /// Books a submit of a job. The job's reservation stays held until the job ends.
    pub fn record_submit(&self, receipt: Receipt) {
        self.consume("job", receipt);
    }

    /// What the holder of a fresh lease on a job's task may do.
    pub(crate) fn claim(job_id: &str, phase: Phase, provider_task: Option<String>) -> Claim {
        match (phase, provider_task) {
            (Phase::New, None) => Claim::Fresh(Self::mint(job_id)),
            (_, Some(task)) => Claim::Resume(task),
            (_, None) => Claim::Unknown(Intent::new(Self::mint(job_id))),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the ledger is the one that mints")]
    fn mint(id: &str) -> Reservation {
        Reservation::mint(id.to_owned(), Nano::ZERO)
    }

    #[expect(
        clippy::unused_self,
        clippy::needless_pass_by_value,
        reason = "a receipt ends here; what it costs comes with prices"
    )]
    fn consume(&self, kind: &'static str, receipt: Receipt) {
        let billing = match receipt.billing() {
            Billing::NotSent => "not_sent",
            Billing::MaybeBilled => "maybe_billed",
            Billing::Billed(_) => "billed",
        };
        metrics::counter!("aig_provider_calls_total", "kind" => kind, "billing" => billing).increment(1);
    }
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
