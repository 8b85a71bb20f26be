//! The bus: signals between the parts of an installation, at most once, never needed for correctness.

use async_trait::async_trait;
use tokio::sync::broadcast;

/// How many signals a slow listener may be behind before it misses some.
const CAPACITY: usize = 1024;

/// Something that others may want to know at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// This job was cancelled: whoever works on it can stop.
    JobCancelled {
        /// The job.
        job_id: String,
    },
}

/// A bus.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Tells everybody who listens now. Nothing waits for them to hear.
    async fn send(&self, signal: Signal);

    /// Listens from now on. A listener that is too slow misses signals and goes on.
    fn listen(&self) -> broadcast::Receiver<Signal>;
}

/// The bus of one process.
#[derive(Clone)]
pub struct MemoryBus(broadcast::Sender<Signal>);

impl MemoryBus {
    /// A bus without listeners.
    pub fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn send(&self, signal: Signal) {
        // An error means that nobody listens.
        let _ = self.0.send(signal);
    }

    fn listen(&self) -> broadcast::Receiver<Signal> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_listener_hears_a_signal() {
        let bus = MemoryBus::new();
        let (mut a, mut b) = (bus.listen(), bus.listen());
        let signal = Signal::JobCancelled { job_id: "job_1".into() };
        bus.send(signal.clone()).await;
        assert_eq!(a.recv().await.unwrap(), signal);
        assert_eq!(b.recv().await.unwrap(), signal);
    }
}
