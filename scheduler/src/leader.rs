//! Leadership: of several schedulers one acts, the others wait. With the embedded database there is only one, and it leads.
//!
//! The leader holds a lease of ten seconds in the database and renews it every three. One that stops gives it up, and
//! another leads within a second; one that is killed is followed when its lease has run out.
//!
//! Two leaders are possible for a moment, when one was stopped in its tracks, its lease ran out, and it goes on with the tick
//! that it was in. That is harmless, so no tick asks twice whether it still leads:
//! - dispatch: a task is made ready by a statement that asks for its state once more when it comes to the row, and a message
//!   too many finds its queue dry;
//! - rescue: a task is freed by a statement that asks for its state and its dead holder once more when it comes to the row,
//!   so that it is freed once and never taken from its next holder;
//! - retain: what is deleted twice is gone once, files too, and a result is forgotten only where there is one.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aig_domain::{Clock, id};
use aig_store::{Leadership, Store};

/// How long a leader leads without renewal.
const LEASE: Duration = Duration::from_secs(10);
/// How often it renews.
const RENEW: Duration = Duration::from_secs(3);
/// How often the others look whether there is still a leader, and how soon anybody tries again when the database failed.
const FOLLOW: Duration = Duration::from_secs(1);
/// How long the end of the leadership may take.
const RESIGN: Duration = Duration::from_secs(2);
/// The row in the database.
const NAME: &str = "scheduler";

/// A scheduler that leads or would like to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leader(Arc<State>);

struct State {
    store: Store,
    clock: Arc<dyn Clock>,
    holder: String,
    /// Until when this process leads, by its own clock, which no other process needs to agree with.
    until: Mutex<Option<Instant>>,
}

impl Leader {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        let holder = id::new("scheduler_", clock.now());
        Self(Arc::new(State { store, clock, holder, until: Mutex::new(None) }))
    }

    /// Whether this process leads.
    pub(crate) fn leads(&self) -> bool {
        self.0.store.is_embedded() || self.until().is_some_and(|until| Instant::now() < until)
    }

    /// Takes part until `stop`; then lets another lead at once.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        if self.0.store.is_embedded() {
            return;
        }
        tokio::select! {
            () = stop => {}
            () = self.take_part() => {}
        }
        if self.leads() {
            self.set(None);
            match tokio::time::timeout(RESIGN, self.0.store.resign(NAME, &self.0.holder)).await {
                Ok(Ok(())) => tracing::info!("this scheduler leads no more"),
                Ok(Err(error)) => tracing::warn!(%error, "the leadership was not given up; it runs out by itself"),
                Err(_) => tracing::warn!("the leadership was not given up in time; it runs out by itself"),
            }
        }
    }

    async fn take_part(&self) {
        loop {
            // The lease counts from before the question, so that it ends here no later than there.
            let asked = Instant::now();
            let wait = match self.0.store.lead(NAME, &self.0.holder, LEASE).await {
                Ok(Leadership::Leading(epoch)) => {
                    if !self.leads() {
                        tracing::info!(epoch, "this scheduler leads");
                    }
                    self.set(Some(asked + LEASE));
                    RENEW
                }
                Ok(Leadership::Following(until)) => {
                    if self.until().is_some() {
                        tracing::warn!("another scheduler leads");
                    }
                    self.set(None);
                    // Just when the lease of the leader runs out, if it is not renewed.
                    (self.0.clock.now().until(until) + Duration::from_millis(1)).min(FOLLOW)
                }
                // A leader leads on until its lease has run out.
                Err(error) => {
                    tracing::warn!(%error, "the schedulers' leader cannot be told; trying again");
                    FOLLOW
                }
            };
            metrics::gauge!("aig_scheduler_leads").set(f64::from(u8::from(self.leads())));
            tokio::time::sleep(wait).await;
        }
    }

    fn until(&self) -> Option<Instant> {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

#[cfg(test)]
mod tests {
    use aig_domain::Secret;
    use aig_domain::clock::SystemClock;
    use aig_store::StoreConfig;
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;

    async fn until(condition: impl Fn() -> bool) -> Duration {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it never happens");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    #[tokio::test]
    async fn one_leads_until_it_stops_or_is_killed() {
        let server = std::env::var("AIG_TEST_POSTGRES_URL")
            .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable".into());
        let Ok(mut admin) = PgConnection::connect(&server).await else {
            assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "no PostgreSQL at {server}");
            return;
        };
        let name = id::new("aig_test_", SystemClock.now());
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut url: url::Url = server.parse().unwrap();
        url.set_path(&name);
        let config = StoreConfig { url: Secret::new(url), max_connections: 4 };
        let (tracker, clock): (_, Arc<dyn Clock>) = (TaskTracker::new(), Arc::new(SystemClock));
        let store = Store::connect(&config, Arc::clone(&clock), &tracker).await.unwrap();
        store.migrate().await.unwrap();

        let start = || {
            let (leader, stop) = (Leader::new(store.clone(), Arc::clone(&clock)), CancellationToken::new());
            let task = tracker.spawn(leader.clone().run(stop.clone().cancelled_owned()));
            (leader, stop, task)
        };
        let (first, stop, _) = start();
        until(|| first.leads()).await;
        let (second, _, killed) = start();
        stop.cancel();
        let handed_over = until(|| second.leads()).await;
        assert!(handed_over < Duration::from_secs(3), "{handed_over:?}");
        assert!(!first.leads());
        let (third, stop, _) = start();
        killed.abort();
        let taken_over = until(|| third.leads()).await;
        assert!(taken_over < LEASE + Duration::from_millis(500), "{taken_over:?}");
        assert!(!second.leads(), "its own clock told it in time");
        stop.cancel();
        store.close().await;
        tracker.close();
        tracker.wait().await;
        admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
    }
}
