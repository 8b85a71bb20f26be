//! Writing what must be written: a held task is never dropped because the database was away.

use std::time::Duration;

use aig_domain::retry::{exponential, jitter};
use aig_domain::{Error, ErrorKind};

use crate::Worker;

/// Why something was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// The worker must end first: the task returns by rescue.
    Stopping,
    /// The store will never take it, however often it is asked: a bug, or bytes that no database holds.
    Impossible,
}

/// Repeats `write` until the store takes it.
pub(crate) async fn until_stored<T, F>(
    worker: &Worker,
    what: &'static str,
    mut write: impl FnMut() -> F,
) -> Result<T, Unwritten>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut failures = 0;
    loop {
        match write().await {
            Ok(value) => return Ok(value),
            Err(error) if error.kind == ErrorKind::Internal => {
                tracing::error!(what, "a write is impossible; it is given up");
                return Err(Unwritten::Impossible);
            }
            Err(error) => tracing::warn!(what, %error, failures, "a write failed; trying again"),
        }
        let wait = jitter(exponential(Duration::from_millis(100), failures, Duration::from_secs(5)), 20);
        failures += 1;
        tokio::select! {
            () = worker.abort.cancelled() => return Err(Unwritten::Stopping),
            () = tokio::time::sleep(wait) => {}
        }
    }
}
