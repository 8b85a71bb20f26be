//! The bus: signals between the parts of an installation, at most once, never needed for correctness.
//!
//! Who caches something listens, and drops what a signal names. Who may have missed signals is told ([`Signal::Missed`], or
//! a lagging receiver) and drops everything. Tests: `shared/cache/tests/suite/bus.rs`, on both forms.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// How many signals a slow listener may be behind before it misses some.
pub(crate) const CAPACITY: usize = 1024;

/// Something that others may want to know at once. On the wire its name is in `type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Signal {
    /// This job was cancelled: whoever works on it can stop.
    JobCancelled {
        /// The job.
        job_id: String,
    },
    /// This key was changed or revoked: a cached copy must be forgotten.
    KeyChanged {
        /// The public part of the key.
        public_id: String,
    },
    /// Signals may have been missed: whatever is cached because of them must be forgotten.
    Missed,
}

/// A bus.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Tells everybody who listens now. Nothing waits for them to hear.
    async fn send(&self, signal: Signal);

    /// Listens from now on. A listener that is too slow misses signals and goes on: it gets `Lagged`, which it should take
    /// like [`Signal::Missed`].
    fn listen(&self) -> broadcast::Receiver<Signal>;

    /// Why signals of other processes are not heard at the moment, as a sentence; `None` when they are.
    fn degraded(&self) -> Option<String> {
        None
    }

    /// Ends what runs in the background. Local listeners go on hearing local signals.
    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_of_signals_stays() {
        let (job_id, public_id) = ("job_1".to_owned(), "ab".to_owned());
        for (signal, wire) in [
            (Signal::JobCancelled { job_id }, r#"{"type":"job_cancelled","job_id":"job_1"}"#),
            (Signal::KeyChanged { public_id }, r#"{"type":"key_changed","public_id":"ab"}"#),
            (Signal::Missed, r#"{"type":"missed"}"#),
        ] {
            assert_eq!(serde_json::to_string(&signal).unwrap(), wire);
            assert_eq!(serde_json::from_str::<Signal>(wire).unwrap(), signal);
        }
    }
}
