//! Writing what must be written: a held task is never dropped because the database was away.

use std::time::Duration;

use aig_domain::Error;
use aig_domain::retry::{exponential, jitter};

use crate::Worker;

/// Repeats `write` until the store takes it. `None` when the worker must end first: then the task returns by rescue.
pub(crate) async fn until_stored<T, F>(worker: &Worker, what: &'static str, mut write: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut failures = 0;
    loop {
        match write().await {
            Ok(value) => return Some(value),
            Err(error) => tracing::warn!(what, %error, failures, "a write failed; trying again"),
        }
        let wait = jitter(exponential(Duration::from_millis(100), failures, Duration::from_secs(5)), 20);
        failures += 1;
        tokio::select! {
            () = worker.abort.cancelled() => return None,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
