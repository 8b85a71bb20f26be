//! PostgreSQL behind bounds of our own, and a pool that heals.
//!
//! The server's `statement_timeout` is only its word: when the network swallows packets without a FIN or RST, sqlx waits for
//! ever, both for an answer and before it gives a dropped connection's place in the pool back (sqlx#4349). So here every
//! checkout, statement and commit ends after a time that we measure; a connection that let it run out is dropped on the
//! spot, place and all; and one that is given back has a few seconds to show that it is alive.
//!
//! A watchdog asks the server each second over a connection of its own. While it gets no answer, callers are refused after
//! [`PATIENCE_WHEN_DOWN`] instead of waiting one by one; a restart that is quicker than that only makes them wait. Whenever
//! there is reason to think that pooled connections are dead, the whole pool is replaced, so that nobody has to find that
//! out connection by connection.
//!
//! Tested by `shared/store/tests/suite/faults.rs`, through a proxy that swallows bytes.

use std::future::Future;
use std::io;
use std::str::FromStr as _;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Execute, Executor as _, PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bounded::{self, Answers, Checkout, PgTx};
use crate::{StoreConfig, StoreError, dialect};

/// How long one statement outside a transaction may take, the wait for a connection included.
const OPERATION: Duration = Duration::from_secs(8);
/// How long a transaction may take, from the wait for a connection to the answer to its commit.
const TRANSACTION: Duration = Duration::from_secs(6);
/// How long a caller waits for a connection, and a connection for the server.
const ACQUIRE: Duration = Duration::from_secs(4);
/// How long the server has to be away before callers are refused at once.
const PATIENCE_WHEN_DOWN: Duration = Duration::from_secs(2);
/// A pooled connection that was idle for longer has to answer before it is used, within [`PING`].
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(1);
/// How long a connection has to answer when it is given back, and a replaced pool to close.
pub(crate) const GIVE_BACK: Duration = Duration::from_secs(5);
/// How often the watchdog asks, and how long the server may take to answer it.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_secs(3);
/// How soon a connection that has to come is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// When nobody has got a connection for this long although some asked, the pool has lost count of its places.
const WEDGED: Duration = Duration::from_secs(10);
/// How often a transaction that has not begun yet is begun again on another connection.
const BEGINS: u32 = 3;

/// What every connection tells the server.
///
/// The timeout of idle transactions and the four about TCP are for the time after our end is gone or stopped without a word:
/// the server must not hold our locks and connections for hours.
///
/// The rest is for the planner. Every statement here touches few rows by way of an index, also where a table is large, and
/// joins have a short list to begin with. The planner finds that out only while its statistics are fresh: without them it
/// sorted a backlog of 100,000 tasks for each claim and went through all running tasks for each step. (That is also why
/// statements that are given a list of tasks ask for `COALESCE(state, '')`: no partial index offers itself in its place.) With
/// one good plan for every statement, it is made once for each connection: planning a list of 64 rows costs more than its work.
const SESSION: [(&str, &str); 13] = [
    ("statement_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20s"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("random_page_cost", "1.1"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// How `config` says to connect, without the limits of [`SESSION`].
pub(crate) fn options(config: &StoreConfig) -> Result<PgConnectOptions, StoreError> {
    Ok(PgConnectOptions::from_str(config.url.expose())
        .map_err(|_| StoreError::Config("the PostgreSQL URL cannot be read".into()))?
        .application_name("aigateway"))
}

/// A connection outside the pool with the limits of [`SESSION`].
///
/// # Errors
/// When the server does not answer in time.
pub(crate) async fn connect_alone(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let options = options.clone().options(SESSION);
    within(Instant::now() + ACQUIRE, PgConnection::connect_with(&options)).await
}

/// `work`, or an error at `deadline`.
pub(crate) async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(no_answer()))
}

pub(crate) fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "PostgreSQL does not answer"))
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pg(Arc<Shared>);

struct Shared {
    pool: RwLock<Generation>,
    options: PgConnectOptions,
    max_connections: u32,
    /// Since when the server does not answer; `None` while it does.
    down: watch::Sender<Option<Instant>>,
    /// When somebody last got a connection.
    acquired: RwLock<Instant>,
    closing: CancellationToken,
    tracker: TaskTracker,
    runtime: Handle,
}

/// One of the pools that this process has used so far.
#[derive(Clone)]
struct Generation {
    number: u64,
    pool: PgPool,
}

impl std::fmt::Debug for Pg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pg")
    }
}

impl Pg {
    /// Makes the pool and starts its watchdog on `tracker`. Opens no connection yet.
    pub(crate) fn open(config: &StoreConfig, tracker: &TaskTracker) -> Result<Self, StoreError> {
        let options = options(config)?.options(SESSION);
        let max_connections = config.max_connections;
        let shared = Arc::new_cyclic(|shared| Shared {
            pool: RwLock::new(Generation { number: 0, pool: pool(0, &options, max_connections, shared) }),
            options,
            max_connections,
            down: watch::Sender::new(None),
            acquired: RwLock::new(Instant::now()),
            closing: CancellationToken::new(),
            tracker: tracker.clone(),
            runtime: Handle::current(),
        });
        let watchdog = Arc::clone(&shared);
        tracker.spawn(async move {
            let closing = watchdog.closing.clone();
            closing.run_until_cancelled(watch(watchdog)).await;
        });
        Ok(Self(shared))
    }

    /// A connection out of the pool.
    pub(crate) async fn checkout(&self) -> Result<Checkout, sqlx::Error> {
        self.0.wait_until_up().await?;
        loop {
            let Generation { number, pool } = self.0.current();
            match pool.acquire().await {
                Ok(connection) => {
                    *self.0.acquired.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    return Ok(Checkout::new(connection, self.clone(), number));
                }
                // Replaced while we waited for it.
                Err(sqlx::Error::PoolClosed) if !self.0.closing.is_cancelled() => {}
                Err(error) => {
                    let last = *self.0.acquired.read().unwrap_or_else(PoisonError::into_inner);
                    if matches!(error, sqlx::Error::PoolTimedOut) && last.elapsed() > WEDGED {
                        self.0.suspect(number, "nobody got a connection for a while");
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Begins a transaction. One whose connection turns out to be dead is begun again on another.
    pub(crate) async fn begin(&self) -> Result<PgTx, sqlx::Error> {
        let deadline = Instant::now() + TRANSACTION;
        let mut begins = 0;
        loop {
            begins += 1;
            let mut tx = PgTx::new(within(deadline, self.checkout()).await?, deadline);
            match tx.run("BEGIN").await {
                Ok(_) => return Ok(tx),
                Err(error) if begins < BEGINS && dialect::is_lost_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs one statement outside a transaction.
    pub(crate) async fn run<'q, E>(&self, statement: E) -> Result<Answers, sqlx::Error>
    where
        E: Execute<'q, Postgres> + 'q,
    {
        let deadline = Instant::now() + OPERATION;
        let mut checkout = Some(within(deadline, self.checkout()).await?);
        bounded::run(&mut checkout, deadline, statement).await
    }

    /// A connection outside the pool without limits on its statements, as soon as the server is there: it may just be
    /// starting.
    pub(crate) async fn alone_and_patient(&self, config: &StoreConfig) -> Result<PgConnection, sqlx::Error> {
        let options = options(config).map_err(|error| sqlx::Error::Configuration(error.into()))?;
        let deadline = Instant::now() + OPERATION;
        loop {
            match within(deadline, PgConnection::connect_with(&options)).await {
                Err(error) if dialect::is_lost_connection(&error) && Instant::now() + AGAIN < deadline => {
                    sleep(AGAIN).await;
                }
                Ok(connection) => {
                    // Whoever comes next need not wait for the watchdog to see it.
                    self.0.down.send_replace(None);
                    return Ok(connection);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Replaces the pool that `number` names: one of its connections did not answer.
    pub(crate) fn suspect(&self, number: u64) {
        self.0.suspect(number, "a connection did not answer");
    }

    /// Finishes `work` in the background, on the tracker that the shutdown waits for.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tracker.spawn_on(work, &self.0.runtime);
    }

    /// Stops the watchdog and closes the connections; those that do not answer are left behind.
    pub(crate) async fn close(&self) {
        self.0.closing.cancel();
        let _ = timeout(GIVE_BACK, self.0.current().pool.close()).await;
    }
}

/// A pool whose connections have to answer before they are used again, unless they just did.
fn pool(number: u64, options: &PgConnectOptions, max_connections: u32, shared: &Weak<Shared>) -> PgPool {
    let shared = shared.clone();
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let shared = shared.clone();
            Box::pin(async move {
                if meta.idle_for < TRUSTED_IDLE {
                    return Ok(true);
                }
                let Ok(answer) = timeout(PING, connection.ping()).await else {
                    if let Some(shared) = shared.upgrade() {
                        shared.suspect(number, "an idle connection did not answer");
                    }
                    return Err(no_answer());
                };
                answer.map(|()| true)
            })
        })
        .connect_lazy_with(options.clone())
}

impl Shared {
    fn current(&self) -> Generation {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when the server is thought to answer; an error when it has been away for too long.
    async fn wait_until_up(&self) -> Result<(), sqlx::Error> {
        let Some(since) = *self.down.borrow() else { return Ok(()) };
        let mut down = self.down.subscribe();
        let up = async { down.wait_for(Option::is_none).await.map(drop).map_err(|_| no_answer()) };
        within(since + PATIENCE_WHEN_DOWN, up).await
    }

    /// Replaces pool `number`, unless that has happened already: its connections may all be dead.
    fn suspect(self: &Arc<Self>, number: u64, why: &'static str) {
        let mut current = self.pool.write().unwrap_or_else(PoisonError::into_inner);
        if current.number != number || self.closing.is_cancelled() {
            return;
        }
        tracing::warn!(why, "the connections to PostgreSQL are replaced");
        metrics::counter!("aig_store_pools_replaced_total").increment(1);
        let next = number + 1;
        let fresh = pool(next, &self.options, self.max_connections, &Arc::downgrade(self));
        let old = std::mem::replace(&mut *current, Generation { number: next, pool: fresh }).pool;
        drop(current);
        // What is in use goes on; who waits for a connection hears of it and turns to the new pool.
        self.tracker.spawn_on(async move { drop(timeout(GIVE_BACK, old.close()).await) }, &self.runtime);
    }
}

/// The watchdog: tells a server that is away from one that is there, over a connection that serves nothing else.
async fn watch(shared: Arc<Shared>) {
    let mut connection: Option<PgConnection> = None;
    // Whether connections may have died since the server last answered, and whether it was heard to say no.
    let (mut broken, mut refused) = (false, false);
    loop {
        let had_one = connection.is_some();
        match within(Instant::now() + PROBE, probe(&shared.options, &mut connection)).await {
            Ok(()) => {
                refused = false;
                if std::mem::take(&mut broken) {
                    shared.suspect(shared.current().number, "the server was away");
                }
                if shared.down.send_replace(None).is_some() {
                    tracing::info!("PostgreSQL answers again");
                }
            }
            Err(error) => {
                connection = None;
                // A server that says no is there, unless it says that it is going or coming.
                if dialect::is_lost_connection(&error) {
                    broken = true;
                    if had_one {
                        // Perhaps it was only this connection: ask at once over a new one.
                        continue;
                    }
                    if shared.down.borrow().is_none() {
                        tracing::warn!(%error, "PostgreSQL does not answer; requests are refused until it does");
                        shared.down.send_replace(Some(Instant::now()));
                    }
                } else if !std::mem::replace(&mut refused, true) {
                    tracing::warn!(%error, "PostgreSQL refused the watchdog");
                }
            }
        }
        metrics::gauge!("aig_store_up").set(if shared.down.borrow().is_none() { 1.0 } else { 0.0 });
        sleep(PROBE_EVERY).await;
    }
}

async fn probe(options: &PgConnectOptions, connection: &mut Option<PgConnection>) -> Result<(), sqlx::Error> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(PgConnection::connect_with(options).await?),
    };
    open.execute("SELECT 1").await.map(drop)
}

#[cfg(test)]
mod tests {
    use aig_domain::Secret;

    use super::*;

    #[tokio::test]
    async fn a_pool_that_has_lost_all_its_places_is_replaced() {
        let url = std::env::var("AIG_TEST_POSTGRES_URL")
            .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable".into());
        let tracker = TaskTracker::new();
        let pg = Pg::open(&StoreConfig { url: Secret::new(url), max_connections: 2 }, &tracker).unwrap();
        let Ok(first) = pg.0.current().pool.acquire().await else {
            assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "no PostgreSQL");
            return;
        };
        // As sqlx does with connections whose peer has vanished.
        let lost = (first.leak(), pg.0.current().pool.acquire().await.unwrap().leak());
        let begun = Instant::now();
        while pg.run("SELECT 1").await.is_err() {
            assert!(begun.elapsed() < WEDGED + ACQUIRE * 2, "it never heals");
        }
        assert_eq!(pg.0.current().number, 1);
        drop(lost);
        pg.close().await;
        tracker.close();
        tracker.wait().await;
    }
}
