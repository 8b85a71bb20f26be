//! Which jobs this worker holds, so that a cancel reaches them at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aig_cache::Signal;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::Worker;

/// The held jobs with the tokens that stop them.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<HashMap<String, CancellationToken>>>);

/// One held job; dropping it ends the watch.
pub(crate) struct Watched {
    job_id: String,
    watch: Watch,
    pub(crate) cancelled: CancellationToken,
}

impl Watch {
    /// Begins to watch `job_id`.
    pub(crate) fn begin(&self, job_id: &str) -> Watched {
        let cancelled = CancellationToken::new();
        self.held().insert(job_id.to_owned(), cancelled.clone());
        Watched { job_id: job_id.to_owned(), watch: self.clone(), cancelled }
    }

    fn cancel(&self, job_id: &str) {
        if let Some(token) = self.held().get(job_id) {
            token.cancel();
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.held().remove(&self.job_id);
    }
}

/// Listens for cancelled jobs until the shutdown. A missed signal costs nothing but the provider's time: the epoch keeps
/// the cancelled job as it is.
pub(crate) async fn run(worker: Arc<Worker>) {
    let mut signals = worker.app.bus.listen();
    loop {
        let signal = tokio::select! {
            () = worker.shutdown.stopping() => return,
            signal = signals.recv() => signal,
        };
        match signal {
            Ok(Signal::JobCancelled { job_id }) => worker.watch.cancel(&job_id),
            Ok(Signal::KeyChanged { .. } | Signal::Missed) => {}
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "signals were missed"),
            Err(RecvError::Closed) => return,
        }
    }
}
