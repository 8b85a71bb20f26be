//! The bus of one process. Tests: `shared/cache/tests/suite/bus.rs`.

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::bus::{Bus, CAPACITY, Signal};

/// The bus of one process. Its listeners never get [`Signal::Missed`] unless somebody sends it.
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
