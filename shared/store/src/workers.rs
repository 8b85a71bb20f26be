//! Leases: one row per process incarnation and role. A task belongs to a live worker.
//!
//! In the embedded database the data folder's lock is the lease: a new process frees whatever the old one held.

use std::time::Duration;

use aig_domain::Millis;
use aig_domain::task::{Lease, crash_backoff};
use sqlx::PgConnection;
use tokio::time::Instant;

use crate::db::{Tx, on};
use crate::{Store, StoreConfig, StoreError, postgres};

/// What a process does. Each role has a row, and a lease, of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Answers requests.
    Api,
    /// Runs tasks.
    Worker,
    /// Does what happens by the clock.
    Scheduler,
}

impl Role {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }
}

/// How long a [`LeaseConnection`] waits for the database.
const RENEWAL: Duration = Duration::from_secs(5);
/// How many tasks one rescue returns at most; the next tick goes on.
const RESCUE_AT_ONCE: i64 = 1000;

/// Whether a task brought its holder down: it had begun a step that can.
macro_rules! crashed {
    () => {
        "claim_id IS NULL AND phase IN ('submitting', 'storing')"
    };
}

/// Puts tasks back whose holder is dead. Only a lease lost in a phase that can bring a worker down counts as a crash, and only
/// if that holder had begun: one that waits for its turn still has the `claim_id`, which its first step takes away.
///
/// What makes a task one of these is asked twice: of two rescues at the same time the second one waits for the rows of the
/// first, and PostgreSQL then looks only at the outer condition again. Without it a task would be freed twice, or taken
/// from whoever claimed it in between.
macro_rules! free {
    ($which:literal, $limit:literal) => {
        concat!(
            "WITH lost (task_id) AS MATERIALIZED (SELECT id FROM tasks WHERE state = 'running' ",
            $which,
            $limit,
            ") UPDATE tasks SET lease_epoch = lease_epoch + 1, worker = NULL, last_error = 'its worker died', \
             crash_count = crash_count + CASE WHEN ",
            crashed!(),
            " THEN 1 ELSE 0 END, \
             state = CASE WHEN ",
            crashed!(),
            " THEN 'waiting' ELSE 'ready' END, \
             run_at = CASE WHEN NOT (",
            crashed!(),
            ") THEN $1 \
                WHEN crash_count = 0 THEN $2 WHEN crash_count = 1 THEN $3 ELSE $4 END \
             FROM lost WHERE id = task_id AND COALESCE(state, '') = 'running' ",
            $which
        )
    };
}

const FREE_ALL: &str = free!("", "LIMIT $5");
const FREE_EXPIRED: &str =
    free!("AND worker IN (SELECT id FROM workers WHERE lease_until < $1) ", "ORDER BY id LIMIT $5");
/// Also for one whose first try was stored although it got no answer.
const REGISTER: &str = "INSERT INTO workers (id, role, started_at, lease_until) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until";
const FORGET_OTHERS: &str = "DELETE FROM workers WHERE role = $1 AND id <> $2";
const RENEW: &str = "UPDATE workers SET lease_until = $1 WHERE id = $2 AND lease_until >= $3 RETURNING id";
const LIVE: &str = "SELECT COUNT(*) FROM workers WHERE role = $1 AND lease_until >= $2";
const END: &str = "UPDATE workers SET lease_until = 0 WHERE id = $1";
const HAND_BACK: &str = "UPDATE tasks SET state = 'ready', worker = NULL, claim_id = NULL, \
    lease_epoch = lease_epoch + 1 WHERE worker = $1 AND state = 'running'";
const RELEASE_CLAIM: &str = "UPDATE tasks SET state = 'ready', worker = NULL, claim_id = NULL, \
    lease_epoch = lease_epoch + 1 WHERE worker = $1 AND state = 'running' AND claim_id = $2";

impl Store {
    /// Registers a process incarnation, alive until `now + lease`. In the embedded database whoever had the role before is
    /// dead, and its row goes.
    pub async fn register_process(&self, id: &str, role: Role, lease: Duration) -> Result<(), StoreError> {
        let now = self.clock.now();
        if self.is_embedded() {
            on!(self.db.write(), |pool| {
                sqlx::query(FORGET_OTHERS).bind(role.as_str()).bind(id).execute(pool).await.map(drop)
            })?;
        }
        on!(self.db.write(), |pool| {
            sqlx::query(REGISTER)
                .bind(id)
                .bind(role.as_str())
                .bind(now.0)
                .bind(now.plus(lease).0)
                .execute(pool)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// How many processes of `role` are alive: those whose lease has not run out.
    pub async fn live_processes(&self, role: Role) -> Result<u32, StoreError> {
        let now = self.clock.now();
        let live: i64 = on!(self.db.read(), |pool| {
            sqlx::query_scalar(LIVE).bind(role.as_str()).bind(now.0).fetch_one(pool).await
        })?;
        Ok(u32::try_from(live).unwrap_or(u32::MAX))
    }

    /// Puts back what a claim of `worker` took, if it took anything: for a claim whose answer never came. This is no crash:
    /// nobody has begun with it.
    ///
    /// A commit that was lost may come through a few seconds later, so one look is not enough.
    pub async fn release_claim(&self, worker: &str, claim_id: &str) -> Result<u64, StoreError> {
        let released = on!(self.db.write(), |pool| {
            let query = sqlx::query(RELEASE_CLAIM).bind(worker).bind(claim_id).execute(pool);
            query.await.map(|done| done.rows_affected())
        })?;
        Ok(released)
    }

    /// Frees every lease of the embedded database: the lock of its data folder proves that their holder is dead.
    pub async fn free_all_leases(&self) -> Result<u64, StoreError> {
        let mut freed = 0;
        loop {
            let some = self.free(FREE_ALL).await?;
            freed += some;
            if some == 0 {
                return Ok(freed);
            }
        }
    }

    /// Returns the tasks of expired workers; gives how many.
    pub async fn rescue(&self) -> Result<u64, StoreError> {
        if self.is_embedded() {
            return Ok(0);
        }
        self.free(FREE_EXPIRED).await
    }

    async fn free(&self, sql: &'static str) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let freed = on!(self.db.write(), |pool| {
            sqlx::query(sql)
                .bind(now.0)
                .bind(now.plus(crash_backoff(1)).0)
                .bind(now.plus(crash_backoff(2)).0)
                .bind(now.plus(crash_backoff(3)).0)
                .bind(RESCUE_AT_ONCE)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })?;
        Ok(freed)
    }

    /// Counts a crash of a claimed task whose handler panicked, and puts it back.
    pub async fn crashed(&self, lease: &Lease, crash_count: i64) -> Result<(), StoreError> {
        let at = self.clock.now().plus(crash_backoff(crash_count + 1));
        on!(self.db.write(), |pool| {
            sqlx::query(
                "UPDATE tasks SET state = 'waiting', run_at = $1, crash_count = crash_count + 1, worker = NULL, \
                 lease_epoch = lease_epoch + 1, last_error = 'its handler panicked' \
                 WHERE id = $2 AND lease_epoch = $3 AND state = 'running'",
            )
            .bind(at.0)
            .bind(&lease.task_id)
            .bind(lease.epoch)
            .execute(pool)
            .await
            .map(drop)
        })?;
        Ok(())
    }
}

/// Ends a lease at once and puts back what its holder still has: it stopped in good order, so this is no crash.
pub(crate) async fn end(tx: &mut Tx, id: &str) -> Result<u64, StoreError> {
    let handed_back =
        on!(tx.conn(), |c| { sqlx::query(HAND_BACK).bind(id).execute(c).await.map(|done| done.rows_affected()) })?;
    on!(tx.conn(), |c| sqlx::query(END).bind(id).execute(c).await.map(drop))?;
    Ok(handed_back)
}

/// A connection to PostgreSQL that serves nothing but one lease, so that a busy pool cannot lose it. Each call ends within
/// seconds.
pub struct LeaseConnection(PgConnection);

impl LeaseConnection {
    /// Opens the connection.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Ok(Self(postgres::connect_alone(&postgres::options(config)?).await?))
    }

    /// Registers a process incarnation, alive until `now + lease`. Doing it again is harmless.
    pub async fn register(&mut self, id: &str, role: Role, now: Millis, lease: Duration) -> Result<(), StoreError> {
        let query = sqlx::query(REGISTER).bind(id).bind(role.as_str()).bind(now.0).bind(now.plus(lease).0);
        postgres::within(Instant::now() + RENEWAL, query.execute(&mut self.0)).await?;
        Ok(())
    }

    /// Prolongs a lease to `now + lease`. `false` when it had expired: its tasks may be somebody else's by now.
    pub async fn renew(&mut self, id: &str, now: Millis, lease: Duration) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar(RENEW).bind(now.plus(lease).0).bind(id).bind(now.0);
        let renewed: Option<String> =
            postgres::within(Instant::now() + RENEWAL, query.fetch_optional(&mut self.0)).await?;
        Ok(renewed.is_some())
    }
}
