//! One handler per kind of task.

pub(crate) mod generate;
mod store_result;
pub(crate) mod submit;
pub(crate) mod webhook;

use std::sync::Arc;

use aig_domain::task::{CRASHES_BEFORE_BURIAL, Lease};
use aig_store::{Step, StepKind};

use crate::Worker;
use crate::persist::{Unwritten, until_stored};

/// A task that this worker holds.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) worker: Arc<Worker>,
    pub(crate) lease: Lease,
    /// How often the work was put off before.
    pub(crate) attempt: u32,
    pub(crate) crash_count: i64,
}

/// The lease is somebody else's, or the worker must end: drop the work.
#[derive(Debug)]
pub(crate) struct Lost;

impl Held {
    /// Records a step; repeats the write until the store takes it.
    pub(crate) async fn step(&self, kind: StepKind) -> Result<(), Lost> {
        let write = || async {
            let step = Step { lease: self.lease.clone(), kind: kind.clone(), now: self.worker.app.clock.now() };
            Ok(self.worker.app.store.step(step).await?)
        };
        match until_stored(&self.worker, "a step", write).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(Unwritten::Stopping) => Err(Lost),
            Err(Unwritten::Impossible) => {
                self.crash().await;
                Err(Lost)
            }
        }
    }

    /// Gives the task back for another worker to go on with; no crash.
    pub(crate) async fn release(&self) {
        let step = Step { lease: self.lease.clone(), kind: StepKind::Release, now: self.worker.app.clock.now() };
        if let Err(error) = self.worker.app.store.step(step).await {
            tracing::warn!(%error, "a task was not handed back; it returns by rescue");
        }
    }

    /// Counts a crash and puts the task back to rest; after the third one it is buried.
    pub(crate) async fn crash(&self) {
        let crashed = || async { Ok(self.worker.app.store.crashed(&self.lease, self.crash_count).await?) };
        if until_stored(&self.worker, "a crash", crashed).await.is_err() {
            tracing::error!("a crash was not counted");
        }
    }

    /// Whether the task has brought its worker down too often to be tried again.
    pub(crate) fn is_poison(&self) -> bool {
        self.crash_count >= CRASHES_BEFORE_BURIAL
    }
}
