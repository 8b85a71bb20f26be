//! A worker's lease: one row per process incarnation, renewed from a thread of its own, so that a busy runtime cannot
//! lose it. In the embedded database the data folder's lock is the lease, and nothing is renewed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aig_domain::{Clock, Error, id};
use aig_store::{LeaseConnection, Store, StoreConfig};

/// The lease of the embedded database, which the lock of its data folder stands for.
const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

/// How long a lease is good, how often it is renewed, and when a worker without renewal stops by itself.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// Good for this long.
    pub good: Duration,
    /// Renewed this often.
    pub renew: Duration,
    /// Without renewal for this long, no new step starts.
    pub stop: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { good: Duration::from_mins(1), renew: Duration::from_secs(20), stop: Duration::from_secs(40) }
    }
}

/// The lease of this process as a worker.
#[derive(Clone)]
pub struct WorkerLease {
    state: Arc<State>,
}

struct State {
    worker: Mutex<String>,
    renewed: Mutex<Instant>,
    /// `None` for the embedded database.
    stop: Option<Duration>,
    ended: AtomicBool,
}

impl WorkerLease {
    /// Registers this process and keeps its lease alive until [`WorkerLease::end`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(
        store: &Store,
        config: &StoreConfig,
        clock: Arc<dyn Clock>,
        times: LeaseTimes,
    ) -> Result<Self, Error> {
        let worker = id::new("worker_", clock.now());
        let embedded = store.is_embedded();
        if embedded {
            store.free_all_leases().await?;
        }
        let good = if embedded { FOR_EVER } else { times.good };
        store.register_worker(&worker, "worker", good).await?;
        let state = Arc::new(State {
            worker: Mutex::new(worker),
            renewed: Mutex::new(Instant::now()),
            stop: (!embedded).then_some(times.stop),
            ended: AtomicBool::new(false),
        });
        if !embedded {
            spawn_keeper(Arc::clone(&state), config.clone(), clock, times)?;
        }
        Ok(Self { state })
    }

    /// The id of this incarnation: claims name it.
    pub fn worker(&self) -> String {
        self.state.worker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether new steps may start: the lease was renewed recently enough.
    pub fn is_good(&self) -> bool {
        let renewed = *self.state.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.stop.is_none_or(|stop| renewed.elapsed() < stop)
    }

    /// Ends the lease: what this worker still holds returns to its queue with the next rescue.
    ///
    /// # Errors
    /// When the database does not answer; then the lease runs out by itself.
    pub async fn end(&self, store: &Store) -> Result<(), Error> {
        self.state.ended.store(true, Ordering::Relaxed);
        Ok(store.unregister_worker(&self.worker()).await?)
    }
}

fn spawn_keeper(state: Arc<State>, config: StoreConfig, clock: Arc<dyn Clock>, times: LeaseTimes) -> Result<(), Error> {
    let run = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the lease cannot be renewed; this worker will stop"),
        };
        runtime.block_on(keep(&state, &config, &*clock, times));
    };
    std::thread::Builder::new().name("aig-lease".into()).spawn(run).map(drop).map_err(|error| {
        tracing::error!(%error, "the thread of the lease cannot be started");
        Error::internal()
    })
}

async fn keep(state: &State, config: &StoreConfig, clock: &dyn Clock, times: LeaseTimes) {
    let mut connection: Option<LeaseConnection> = None;
    let mut wait = times.renew;
    while !state.ended.load(Ordering::Relaxed) {
        tokio::time::sleep(wait).await;
        match tokio::time::timeout(times.renew, renew(state, config, clock, times, &mut connection)).await {
            Ok(Ok(())) => wait = times.renew,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the worker's lease was not renewed; trying again");
                (connection, wait) = (None, times.renew / 10);
            }
            Err(_) => {
                tracing::warn!("the database did not answer the renewal of the worker's lease; trying again");
                (connection, wait) = (None, times.renew / 10);
            }
        }
    }
}

async fn renew(
    state: &State,
    config: &StoreConfig,
    clock: &dyn Clock,
    times: LeaseTimes,
    connection: &mut Option<LeaseConnection>,
) -> Result<(), aig_store::StoreError> {
    let begun = Instant::now();
    let worker = state.worker.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut open = match connection.take() {
        Some(open) => open,
        None => LeaseConnection::open(config).await?,
    };
    if !open.renew(&worker, clock.now(), times.good).await? {
        // It had expired, and its tasks may be with others by now: their epochs decide. From here on we are a new worker.
        let next = id::new("worker_", clock.now());
        tracing::warn!(worker, next, "the worker's lease had expired; going on under a new one");
        open.register(&next, "worker", clock.now(), times.good).await?;
        *state.worker.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
    *connection = Some(open);
    *state.renewed.lock().unwrap_or_else(PoisonError::into_inner) = begun;
    Ok(())
}
