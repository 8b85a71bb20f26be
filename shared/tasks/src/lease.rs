//! A process's lease: one row per process incarnation and role, renewed from a thread of its own, so that a busy runtime
//! cannot lose it. In the embedded database the data folder's lock is the lease, and nothing is renewed.
//!
//! A worker holds its tasks by its lease; the rows of all roles together tell how many processes there are. Registering
//! fails nobody: while the database is away it is tried again in the background, and the lease is not good until then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aig_domain::{Clock, Error, id};
use aig_store::{LeaseConnection, Role, Store, StoreConfig, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The lease of the embedded database, which the lock of its data folder stands for.
const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);
/// How long a process that starts waits for its registration before it goes on without.
const FIRST_TRY: Duration = Duration::from_secs(2);

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

/// The lease of this process in one role. Cheap to clone.
#[derive(Clone)]
pub struct ProcessLease {
    state: Arc<State>,
}

struct State {
    role: Role,
    id: Mutex<String>,
    /// When the last renewal that succeeded was sent; `None` before the registration.
    renewed: watch::Sender<Option<Instant>>,
    /// `None` for the embedded database.
    stop: Option<Duration>,
    ended: CancellationToken,
}

impl ProcessLease {
    /// Registers this process as `role` and keeps its lease alive until [`ProcessLease::end`].
    ///
    /// # Errors
    /// When the embedded database fails, or no thread can be started. PostgreSQL may be away.
    pub async fn begin(
        role: Role,
        store: &Store,
        config: &StoreConfig,
        clock: Arc<dyn Clock>,
        times: LeaseTimes,
    ) -> Result<Self, Error> {
        let embedded = store.is_embedded();
        let state = Arc::new(State {
            role,
            id: Mutex::new(new_id(role, &*clock)),
            renewed: watch::Sender::new(None),
            stop: (!embedded).then_some(times.stop),
            ended: CancellationToken::new(),
        });
        if embedded {
            if role == Role::Worker {
                store.free_all_leases().await?;
            }
            store.register_process(&state.id(), role, FOR_EVER).await?;
        } else {
            spawn_keeper(Arc::clone(&state), config.clone(), clock, times)?;
            let mut renewed = state.renewed.subscribe();
            if tokio::time::timeout(FIRST_TRY, renewed.wait_for(Option::is_some)).await.is_err() {
                tracing::warn!(role = role.as_str(), "the database is away; this process registers when it is back");
            }
        }
        Ok(Self { state })
    }

    /// The id of this incarnation: claims name it. Another one after the lease had run out.
    pub fn id(&self) -> String {
        self.state.id()
    }

    /// Whether new steps may start: the lease was renewed recently enough.
    pub fn is_good(&self) -> bool {
        self.state.stop.is_none_or(|stop| self.state.renewed.borrow().is_some_and(|renewed| renewed.elapsed() < stop))
    }

    /// Ends the lease: what this process still holds returns to its queue at once, which is no crash.
    ///
    /// # Errors
    /// When the database does not answer; then the lease runs out by itself.
    pub async fn end(&self, store: &Store) -> Result<(), Error> {
        self.state.ended.cancel();
        let handed_back = store.unregister_process(&self.id()).await?;
        if handed_back > 0 {
            tracing::info!(handed_back, "tasks that were still held went back to their queues");
        }
        Ok(())
    }
}

impl State {
    fn id(&self) -> String {
        self.id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn new_id(role: Role, clock: &dyn Clock) -> String {
    let prefix = match role {
        Role::Api => "api_",
        Role::Worker => "worker_",
        Role::Scheduler => "scheduler_",
    };
    id::new(prefix, clock.now())
}

fn spawn_keeper(state: Arc<State>, config: StoreConfig, clock: Arc<dyn Clock>, times: LeaseTimes) -> Result<(), Error> {
    let run = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the lease cannot be renewed; this worker will stop"),
        };
        runtime.block_on(state.ended.run_until_cancelled(keep(&state, &config, &*clock, times)));
    };
    std::thread::Builder::new().name("aig-lease".into()).spawn(run).map(drop).map_err(|error| {
        tracing::error!(%error, "the thread of the lease cannot be started");
        Error::internal()
    })
}

async fn keep(state: &State, config: &StoreConfig, clock: &dyn Clock, times: LeaseTimes) {
    let mut connection: Option<LeaseConnection> = None;
    loop {
        let wait = match renew(state, config, clock, times, &mut connection).await {
            Ok(()) => times.renew,
            Err(error) => {
                tracing::warn!(role = state.role.as_str(), %error, "the lease was not renewed; trying again");
                times.renew / 10
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Renews the lease, or registers it. Leaves no connection behind when that failed.
async fn renew(
    state: &State,
    config: &StoreConfig,
    clock: &dyn Clock,
    times: LeaseTimes,
    connection: &mut Option<LeaseConnection>,
) -> Result<(), StoreError> {
    let begun = Instant::now();
    let (id, registered) = (state.id(), state.renewed.borrow().is_some());
    let mut open = match connection.take() {
        Some(open) => open,
        None => LeaseConnection::open(config).await?,
    };
    if !registered {
        open.register(&id, state.role, clock.now(), times.good).await?;
    } else if !open.renew(&id, clock.now(), times.good).await? {
        // It had expired, and its tasks may be with others by now: their epochs decide. From here on we are a new process.
        let next = new_id(state.role, clock);
        tracing::warn!(id, next, "the lease had expired; going on under a new one");
        open.register(&next, state.role, clock.now(), times.good).await?;
        *state.id.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
    *connection = Some(open);
    state.renewed.send_replace(Some(begun));
    Ok(())
}
