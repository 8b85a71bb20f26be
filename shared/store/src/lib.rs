//! The database: one SQL text for SQLite and PostgreSQL.
//!
//! [`Store`] is the only door. Hot writes (accept, claim and checkpoint, finish and settle) go through bounded
//! [combiner lanes](combine): what waits while a commit is under way becomes the next transaction. Everything here is
//! tested on both databases by `shared/store/tests/suite`.

mod accept;
pub mod accounts;
mod api_key;
mod balances;
mod bounded;
mod caps;
mod clock;
mod combine;
mod db;
mod dialect;
mod dispatch;
mod doctor;
mod enqueue;
mod error;
mod fair;
mod finish;
mod idempotency;
mod jobs;
mod keys;
mod leaders;
mod lease;
mod ledger;
mod ledger_rows;
mod overdue;
mod page;
mod payer;
mod postgres;
mod prices;
mod refunds;
mod requests;
mod reservations;
mod retain;
mod settle;
mod sql;
mod steps;
mod sub_accounts;
mod usage;
mod usage_rows;
mod webhooks;
mod workers;

use std::sync::Arc;

use aig_domain::Clock;
use tokio_util::task::TaskTracker;

pub use accept::{Accepted, NewCall, NewJob, Raised};
pub use accounts::{NewAccount, NewApiKey, Scope, WebhookSecrets};
pub use api_key::{ApiKey, CappedTags};
pub use caps::Budget;
pub use clock::database_clock;
pub use db::StoreConfig;
pub use dispatch::DueWork;
pub use doctor::Finding;
pub use enqueue::{FIRST_EPOCH, TaskClaim};
pub use error::StoreError;
pub use finish::{Attempt, Delivery, DeliveryEnd, JobEnd, JobEndTarget, NewEvent, Won};
pub use idempotency::Idempotency;
pub use jobs::{JobPage, JobsOf};
pub use keys::{KeyRecord, NewLimitedKey};
pub use leaders::Leadership;
pub use lease::{ClaimRequest, Claimed, WebhookEvent, Work};
pub use ledger::{Claim, Ledger};
pub use page::Page;
pub use refunds::Refunded;
pub use requests::{RequestOutcome, RequestRow};
pub use reservations::MoneyEnd;
pub use retain::Expired;
pub use settle::CallEnd;
pub use steps::{Step, StepKind};
pub use sub_accounts::{NewSubAccount, SubAccount, SubAccountChange};
pub use usage::{DayUsage, ModelUsage, SubAccountUsage, Sums, UsageLine, UsageLines};
pub use usage_rows::{OpenRequest, Refund, RequestDetail, RequestFilter, ReservationState, SeenRequest};
pub use webhooks::WebhookHistory;
pub use workers::{LeaseConnection, Role};

use combine::Lane;
use db::Db;

/// How many items may wait in one lane before callers are told to come back.
const LANE_CAPACITY: usize = 8192;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    db: Db,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    accept: Lane<accept::AcceptBatch>,
    lease: Lane<lease::LeaseBatch>,
    finish: Lane<finish::FinishBatch>,
}

impl Store {
    /// Opens the database and starts the lanes on `tracker`. Changes no schema: see [`Store::migrate`].
    ///
    /// PostgreSQL need not be there yet: whatever is asked before it is fails within seconds, and works once it is.
    ///
    /// # Errors
    /// When the URL is not understood, or the embedded database cannot be opened.
    pub async fn connect(
        config: &StoreConfig,
        clock: Arc<dyn Clock>,
        tracker: &TaskTracker,
    ) -> Result<Self, StoreError> {
        let db = Db::connect(config, tracker).await?;
        let ledger = Ledger::default();
        Ok(Self {
            accept: Lane::spawn(accept::AcceptBatch, db.clone(), LANE_CAPACITY, tracker),
            lease: Lane::spawn(lease::LeaseBatch, db.clone(), LANE_CAPACITY, tracker),
            finish: Lane::spawn(finish::FinishBatch, db.clone(), LANE_CAPACITY, tracker),
            db,
            clock,
            ledger,
        })
    }

    /// Brings the schema up to date. Safe to run at the same time from many processes.
    ///
    /// # Errors
    /// When the database is newer than this program, a statement fails, or PostgreSQL is not there within a few seconds.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.db.migrate().await
    }

    /// Whether the schema is as new as this program.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when it is older, or not there.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        self.db.check_schema().await
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not; PostgreSQL has a few seconds, and is not asked while it is known to be away.
    pub async fn ping(&self) -> Result<(), StoreError> {
        db::on!(self.db.read(), |pool| sqlx::query("SELECT 1").execute(pool).await.map(drop))?;
        Ok(())
    }

    /// Whether this is the embedded database, where the data folder's lock stands for every lease.
    pub fn is_embedded(&self) -> bool {
        self.db.is_sqlite()
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes no more writes, waits until the lanes are empty, closes the connections.
    pub async fn close(&self) {
        self.accept.close().await;
        self.lease.close().await;
        self.finish.close().await;
        self.db.close().await;
    }
}
