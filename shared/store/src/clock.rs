//! The time of the database: leases of many processes are compared with one clock, however wrong those of their machines
//! are. Statements never call `now()`; they are given this clock's time.
//!
//! The time is the server's at the last probe plus what has elapsed here since. Within one process it never goes back: when
//! a probe finds the server behind, the clock stands still until the server has caught up. The one exception is the first
//! probe. Until it succeeds, the machine's clock has to do, and if that was ahead by ten minutes, standing still for that
//! long would take every other process's lease for expired.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aig_domain::clock::SystemClock;
use aig_domain::{Clock, Millis};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio_util::task::TaskTracker;

use crate::postgres::{connect_alone, options, within};
use crate::{StoreConfig, StoreError};

/// How often the server is asked, and how soon again after it did not answer.
const EVERY: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);
/// How long the server may take to answer; what took longer than [`USEFUL`] tells too little.
const PROBE: Duration = Duration::from_secs(3);
const USEFUL: Duration = Duration::from_secs(1);

const ASK: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// The clock for a store: the server's on PostgreSQL, the machine's with the embedded database.
///
/// Returns after the first probe, whether it succeeded or not, and goes on probing on `tracker` until `stop` is ready.
///
/// # Errors
/// When the URL of the database cannot be read.
pub async fn database_clock(
    config: &StoreConfig,
    tracker: &TaskTracker,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<Arc<dyn Clock>, StoreError> {
    if config.is_embedded() {
        return Ok(Arc::new(SystemClock));
    }
    let options = options(config)?;
    let clock = Arc::new(DatabaseClock::default());
    let mut connection = None;
    clock.ask(&options, &mut connection).await;
    let probing = Arc::clone(&clock);
    tracker.spawn(async move {
        tokio::select! {
            () = stop => {}
            () = probing.keep_asking(&options, connection) => {}
        }
    });
    Ok(clock)
}

/// The server's time.
#[derive(Default)]
struct DatabaseClock(Mutex<State>);

#[derive(Default)]
struct State {
    /// The server's time, and when it was that here.
    reading: Option<(Millis, Instant)>,
    /// The latest time that anybody was told.
    told: Millis,
}

impl Clock for DatabaseClock {
    fn now(&self) -> Millis {
        self.state().now(Instant::now())
    }
}

impl State {
    fn now(&mut self, here: Instant) -> Millis {
        match self.reading {
            Some((server, at)) => {
                self.told = self.told.max(server.plus(here.saturating_duration_since(at)));
                self.told
            }
            None => SystemClock.now(),
        }
    }

    /// Takes the server's word, which was asked for at `asked` and arrived at `answered`. It is half a round trip old.
    fn take(&mut self, server: Millis, asked: Instant, answered: Instant) {
        let round_trip = answered.saturating_duration_since(asked);
        if round_trip <= USEFUL {
            self.reading = Some((server.plus(round_trip / 2), answered));
        }
    }
}

impl DatabaseClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_asking(&self, options: &PgConnectOptions, mut connection: Option<PgConnection>) {
        loop {
            tokio::time::sleep(if connection.is_some() { EVERY } else { AGAIN }).await;
            self.ask(options, &mut connection).await;
        }
    }

    /// One probe. Leaves no connection behind when it failed.
    async fn ask(&self, options: &PgConnectOptions, connection: &mut Option<PgConnection>) {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match connect_alone(options).await {
                Ok(open) => open,
                Err(error) => return tracing::debug!(%error, "the database was not asked for its time"),
            },
        };
        let asked = Instant::now();
        let query = sqlx::query_scalar(ASK).fetch_one(&mut open);
        match within(tokio::time::Instant::from_std(asked) + PROBE, query).await {
            Ok(server) => {
                let (answered, machine) = (Instant::now(), SystemClock.now());
                self.state().take(Millis(server), asked, answered);
                #[expect(clippy::cast_precision_loss, reason = "a gauge")]
                metrics::gauge!("aig_clock_ahead_of_machine_ms").set((server - machine.0) as f64);
                *connection = Some(open);
            }
            Err(error) => tracing::debug!(%error, "the database did not tell its time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_is_the_servers_plus_what_has_elapsed() {
        let (mut state, here) = (State::default(), Instant::now());
        state.take(Millis(1_000_000), here, here + SECOND / 5);
        assert_eq!(state.now(here + SECOND / 5), Millis(1_000_100), "half of the round trip");
        assert_eq!(state.now(here + SECOND), Millis(1_000_900));
    }

    #[test]
    fn it_stands_still_rather_than_going_back() {
        let (mut state, here) = (State::default(), Instant::now());
        state.take(Millis(1_000_000), here, here);
        assert_eq!(state.now(here + SECOND), Millis(1_001_000));
        state.take(Millis(999_000), here + SECOND, here + SECOND);
        assert_eq!(state.now(here + SECOND), Millis(1_001_000));
        assert_eq!(state.now(here + SECOND * 2), Millis(1_001_000));
        assert_eq!(state.now(here + SECOND * 4), Millis(1_002_000));
    }

    #[test]
    fn a_slow_answer_is_not_used() {
        let (mut state, here) = (State::default(), Instant::now());
        state.take(Millis(1_000_000), here, here);
        state.take(Millis(5_000_000), here, here + SECOND * 2);
        assert_eq!(state.now(here), Millis(1_000_000));
    }

    #[test]
    fn before_the_first_answer_the_machine_has_to_do_and_no_grudge_is_held() {
        let (mut state, here) = (State::default(), Instant::now());
        let machine = SystemClock.now();
        assert!(state.now(here) >= machine);
        state.take(Millis(1_000_000), here, here);
        assert_eq!(state.now(here), Millis(1_000_000), "the machine was decades ahead");
    }
}
