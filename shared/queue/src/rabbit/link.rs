//! A connection that is always there or on its way: the supervisor of one [`Session`] after the other.
//!
//! Promises: whatever happens to a session, another one is tried, with the queues declared again, after a jittered pause that
//! grows from half a second to ten; a failure is logged once, not at every try; `aig_broker_connected{connection}` says how it
//! is. Tests: `tests/suite/outages.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aig_domain::retry::{exponential, jitter};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::session::{Purpose, Session};
use crate::BrokerError;

/// With [`JITTER`], pauses of 0.5 to 10 s.
const FIRST_PAUSE: Duration = Duration::from_millis(625);
const LONGEST_PAUSE: Duration = Duration::from_millis(8300);
/// In percent.
const JITTER: u32 = 20;

#[derive(Clone)]
enum State {
    Starting,
    Up(Arc<Session>),
    Down(BrokerError),
}

/// One of the two connections.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

impl Link {
    pub(super) fn start(purpose: Purpose, shared: &Arc<Shared>) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        shared.tracker.spawn(supervise(purpose, Arc::clone(shared), sender));
        Self { state, stop: shared.stop.clone() }
    }

    /// The session, if there is one.
    pub(super) fn session(&self) -> Result<Arc<Session>, BrokerError> {
        if self.stop.is_cancelled() {
            return Err(BrokerError::Closed);
        }
        match &*self.state.borrow() {
            State::Up(session) => Ok(Arc::clone(session)),
            State::Down(error) => Err(error.clone()),
            State::Starting => Err(BrokerError::Unavailable("connecting".to_owned())),
        }
    }

    /// The session; waits for it as long as `patience` lasts.
    pub(super) async fn session_within(&self, patience: Duration) -> Result<Arc<Session>, BrokerError> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| matches!(state, State::Up(_) | State::Down(BrokerError::Closed)));
        // Late or ended: the state now says why.
        let _ = timeout(patience, up).await;
        self.session()
    }

    /// How the first try went.
    pub(super) async fn tried(&self) -> Result<(), BrokerError> {
        let mut state = self.state.clone();
        let _ = state.wait_for(|state| !matches!(state, State::Starting)).await;
        self.session().map(drop)
    }

    /// Whether it is of use now.
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        let session = self.session()?;
        if session.is_blocked() { Err(blocked()) } else { Ok(()) }
    }

    /// Waits until the supervisor has ended.
    pub(super) async fn closed(&self) {
        let mut state = self.state.clone();
        // An error is a supervisor that is gone.
        let _ = state.wait_for(|state| matches!(state, State::Down(BrokerError::Closed))).await;
    }
}

pub(super) fn blocked() -> BrokerError {
    BrokerError::Unavailable("it is short of memory or disk and takes no messages".to_owned())
}

async fn supervise(purpose: Purpose, shared: Arc<Shared>, state: watch::Sender<State>) {
    // Who starts the broker says how the first try went.
    let mut told = true;
    let mut failures = 0;
    loop {
        gauge(purpose, false);
        let opened = tokio::select! {
            opened = Session::open(purpose, &shared) => opened,
            () = shared.stop.cancelled() => break,
        };
        match opened {
            Ok(session) => {
                let begun = Instant::now();
                hold(purpose, &shared, &state, session).await;
                if begun.elapsed() > LONGEST_PAUSE {
                    failures = 0;
                }
                told = true;
            }
            Err(error) => {
                if told {
                    tracing::debug!(connection = purpose.as_str(), %error, "RabbitMQ is not connected");
                } else {
                    tracing::warn!(connection = purpose.as_str(), %error, "RabbitMQ is not connected; trying again until it works");
                }
                told = true;
                state.send_replace(State::Down(error));
            }
        }
        let pause = jitter(exponential(FIRST_PAUSE, failures, LONGEST_PAUSE), JITTER);
        failures += 1;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.stop.cancelled() => break,
        }
    }
    state.send_replace(State::Down(BrokerError::Closed));
}

/// Offers `session` until it ends, and closes it.
async fn hold(purpose: Purpose, shared: &Shared, state: &watch::Sender<State>, session: Session) {
    let session = Arc::new(session);
    gauge(purpose, true);
    tracing::info!(connection = purpose.as_str(), "RabbitMQ is connected");
    state.send_replace(State::Up(Arc::clone(&session)));
    tokio::select! {
        reason = session.ended() => {
            tracing::warn!(connection = purpose.as_str(), reason, "the connection to RabbitMQ is lost; connecting again");
            state.send_replace(State::Down(BrokerError::Unavailable(reason)));
        }
        () = shared.stop.cancelled() => {}
    }
    gauge(purpose, false);
    session.close().await;
}

fn gauge(purpose: Purpose, connected: bool) {
    metrics::gauge!("aig_broker_connected", "connection" => purpose.as_str()).set(if connected { 1.0 } else { 0.0 });
}
