//! Whether something works: told once when it changes, to the log, to a gauge and to whoever asks. Tests at the end.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state of one use of Redis. It begins in trouble: nothing is connected yet.
pub(super) struct Health {
    gauge: &'static str,
    harm: &'static str,
    state: Mutex<State>,
}

enum State {
    Unknown,
    Good,
    Bad(String),
}

impl Health {
    /// `gauge` is 1 while there is trouble; `harm` says what that means for people.
    pub(super) fn new(gauge: &'static str, harm: &'static str) -> Self {
        Self { gauge, harm, state: Mutex::new(State::Unknown) }
    }

    /// It works.
    pub(super) fn good(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Good);
        if let State::Bad(_) = before {
            tracing::info!("Redis is back; it is no longer true that {}", self.harm);
        }
        self.measure();
    }

    /// It does not work, because of `reason`.
    pub(super) fn bad(&self, reason: String) {
        let mut state = self.state();
        match &*state {
            State::Bad(_) => tracing::debug!(reason, "still: {}", self.harm),
            State::Unknown | State::Good => tracing::warn!(reason, "{}", self.harm),
        }
        *state = State::Bad(reason);
        drop(state);
        self.measure();
    }

    /// It was ended on purpose.
    pub(super) fn closed(&self) {
        *self.state() = State::Bad("closed".into());
    }

    /// Sets the gauge again, since metrics may begin to be recorded after the first change.
    pub(super) fn measure(&self) {
        let bad = !matches!(&*self.state(), State::Good);
        metrics::gauge!(self.gauge).set(f64::from(u8::from(bad)));
    }

    /// The trouble as a sentence.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.state() {
            State::Good => None,
            State::Unknown => Some(format!("{}: not connected to Redis yet", self.harm)),
            State::Bad(reason) => Some(format!("{}: {reason}", self.harm)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_a_sentence_and_a_gauge() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let health = Health::new("aig_test_degraded", "tests are late");
        let gauge = || recorder.handle().render().lines().find(|line| line.starts_with("aig_test")).map(str::to_owned);
        metrics::with_local_recorder(&recorder, || health.measure());
        assert_eq!(gauge().as_deref(), Some("aig_test_degraded 1"));
        assert_eq!(health.trouble().as_deref(), Some("tests are late: not connected to Redis yet"));
        metrics::with_local_recorder(&recorder, || health.good());
        assert_eq!((gauge().as_deref(), health.trouble()), (Some("aig_test_degraded 0"), None));
        metrics::with_local_recorder(&recorder, || health.bad("it rains".into()));
        assert_eq!(gauge().as_deref(), Some("aig_test_degraded 1"));
        assert_eq!(health.trouble().as_deref(), Some("tests are late: it rains"));
    }
}
