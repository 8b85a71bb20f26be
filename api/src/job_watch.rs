//! Who waits for which job to change, and the one loop that looks.
//!
//! Watched jobs are looked up together, twice a second, by version alone: however many clients wait, on however many api
//! processes, the database answers one small statement per 64 jobs. No signal is needed, so none can be missed. Tests at the
//! end, and of the stream in `tests/it`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aig_platform::Shutdown;
use aig_store::Store;
use tokio::sync::watch;

/// How often the versions of watched jobs are looked up.
const EVERY: Duration = Duration::from_millis(500);

/// The watched jobs. Cheap to clone.
#[derive(Clone, Default)]
pub struct JobWatch(Arc<Mutex<HashMap<String, watch::Sender<i64>>>>);

/// One client's wait for one job. Dropping the last of a job ends its watch.
pub struct Watcher {
    job_id: String,
    version: watch::Receiver<i64>,
    jobs: JobWatch,
}

impl JobWatch {
    /// Begins to watch a job that was read at `version`.
    pub fn watch(&self, job_id: &str, version: i64) -> Watcher {
        let mut jobs = self.lock();
        let sender = jobs.entry(job_id.to_owned()).or_insert_with(|| watch::Sender::new(version));
        let mut receiver = sender.subscribe();
        // A version that is not the reader's own is news to it, whoever saw it first.
        if *receiver.borrow_and_update() != version {
            receiver.mark_changed();
        }
        Watcher { job_id: job_id.to_owned(), version: receiver, jobs: self.clone() }
    }

    /// Looks until the shutdown begins.
    pub async fn run(self, store: Store, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.stopping() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let ids: Vec<String> = self.lock().keys().cloned().collect();
            if ids.is_empty() {
                continue;
            }
            match store.job_versions(&ids).await {
                Ok(versions) => self.saw(&versions),
                Err(error) => tracing::warn!(%error, "watched jobs cannot be looked up; trying again"),
            }
        }
    }

    fn saw(&self, versions: &[(String, i64)]) {
        let jobs = self.lock();
        for (id, version) in versions {
            if let Some(sender) = jobs.get(id) {
                sender.send_if_modified(|known| {
                    let newer = *version > *known;
                    *known = (*version).max(*known);
                    newer
                });
            }
        }
    }

    /// Our critical sections cannot panic, so a poisoned lock still guards a whole value.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// The watched job.
    pub fn job_id(&self) -> &str {
        &self.job_id
    }

    /// Returns when the job has changed since the last call.
    pub async fn changed(&mut self) {
        // An error would mean that the watch has ended, which it does with its last watcher: this one.
        let _ = self.version.changed().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut jobs = self.jobs.lock();
        if jobs.get(&self.job_id).is_some_and(|sender| sender.receiver_count() <= 1) {
            jobs.remove(&self.job_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn watchers_hear_of_newer_versions_and_leave_nothing_behind() {
        let jobs = JobWatch::default();
        let (mut first, mut second) = (jobs.watch("job_1", 1), jobs.watch("job_1", 1));
        assert!(first.changed().now_or_never().is_none());
        jobs.saw(&[("job_1".into(), 2), ("job_other".into(), 9)]);
        assert!(first.changed().now_or_never().is_some() && second.changed().now_or_never().is_some());
        jobs.saw(&[("job_1".into(), 2)]);
        assert!(first.changed().now_or_never().is_none(), "nothing new");
        let mut late = jobs.watch("job_1", 1);
        assert!(late.changed().now_or_never().is_some(), "what others saw is news to a reader of an older row");
        drop((first, second));
        assert_eq!(jobs.lock().len(), 1);
        drop(late);
        assert!(jobs.lock().is_empty());
    }
}
