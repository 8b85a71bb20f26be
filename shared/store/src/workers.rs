//! Leases: one row per process incarnation and role. A task belongs to a live worker.
//!
//! In the embedded database the data folder's lock is the lease: a new process frees whatever the old one held.

use std::time::Duration;

use aig_domain::Millis;
use aig_domain::task::{Lease, crash_backoff};
use sqlx::{Connection as _, PgConnection};

use crate::db::on;
use crate::{Store, StoreConfig, StoreError};

/// How many tasks one rescue returns at most; the next tick goes on.
const RESCUE_AT_ONCE: i64 = 1000;

/// Puts tasks back whose holder is dead. Only a lease lost in a phase that can bring a worker down counts as a crash.
macro_rules! free {
    ($which:literal, $guard:literal) => {
        concat!(
            "UPDATE tasks SET lease_epoch = lease_epoch + 1, worker = NULL, last_error = 'its worker died', \
             crash_count = crash_count + CASE WHEN phase IN ('submitting', 'storing') THEN 1 ELSE 0 END, \
             state = CASE WHEN phase IN ('submitting', 'storing') THEN 'waiting' ELSE 'ready' END, \
             run_at = CASE WHEN phase NOT IN ('submitting', 'storing') THEN $1 \
                WHEN crash_count = 0 THEN $2 WHEN crash_count = 1 THEN $3 ELSE $4 END \
             WHERE state = 'running' AND id IN (SELECT id FROM tasks WHERE state = 'running' ",
            $which,
            ")",
            $guard
        )
    };
}

const FREE_ALL: &str = free!("LIMIT $5", "");
// The outer condition is what a second scheduler, which waited for the row, judges anew.
const FREE_EXPIRED: &str = free!(
    "AND worker IN (SELECT id FROM workers WHERE lease_until < $1) ORDER BY id LIMIT $5",
    " AND worker IN (SELECT id FROM workers WHERE lease_until < $1)"
);

const REGISTER: &str = "INSERT INTO workers (id, role, started_at, lease_until) VALUES ($1, $2, $3, $4)";
const RENEW: &str = "UPDATE workers SET lease_until = $1 WHERE id = $2 AND lease_until >= $3 RETURNING id";

impl Store {
    /// Registers a process incarnation, alive until `now + lease`.
    pub async fn register_worker(&self, id: &str, role: &str, lease: Duration) -> Result<(), StoreError> {
        let now = self.clock.now();
        on!(self.db.write(), |pool| {
            sqlx::query(REGISTER).bind(id).bind(role).bind(now.0).bind(now.plus(lease).0).execute(pool).await.map(drop)
        })?;
        Ok(())
    }

    /// Ends a lease at once: what its holder still held returns with the next rescue.
    pub async fn unregister_worker(&self, id: &str) -> Result<(), StoreError> {
        on!(self.db.write(), |pool| {
            sqlx::query("UPDATE workers SET lease_until = 0 WHERE id = $1").bind(id).execute(pool).await.map(drop)
        })?;
        Ok(())
    }

    /// Frees every lease of the embedded database: the lock of its data folder proves that their holder is dead.
    pub async fn free_all_leases(&self) -> Result<u64, StoreError> {
        on!(self.db.write(), |pool| sqlx::query("DELETE FROM workers").execute(pool).await.map(drop))?;
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

/// A connection to PostgreSQL that serves nothing but one lease, so that a busy pool cannot lose it.
pub struct LeaseConnection(PgConnection);

impl LeaseConnection {
    /// Opens the connection.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Ok(Self(PgConnection::connect(config.url.expose()).await?))
    }

    /// Registers a process incarnation, alive until `now + lease`.
    pub async fn register(&mut self, id: &str, role: &str, now: Millis, lease: Duration) -> Result<(), StoreError> {
        let query = sqlx::query(REGISTER).bind(id).bind(role).bind(now.0).bind(now.plus(lease).0);
        query.execute(&mut self.0).await?;
        Ok(())
    }

    /// Prolongs a lease to `now + lease`. `false` when it had expired: its tasks may be somebody else's by now.
    pub async fn renew(&mut self, id: &str, now: Millis, lease: Duration) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar(RENEW).bind(now.plus(lease).0).bind(id).bind(now.0);
        let renewed: Option<String> = query.fetch_optional(&mut self.0).await?;
        Ok(renewed.is_some())
    }
}
