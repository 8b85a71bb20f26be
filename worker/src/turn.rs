//! A turn: the right to run one step now. A task that brought its worker down before runs alone, so that it can only
//! bring down itself.

use std::sync::Arc;

use aig_domain::task::CRASHES_BEFORE_ALONE;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore};

/// Hands out turns.
#[derive(Clone, Default)]
pub(crate) struct Turns {
    /// Shared by steps in company, exclusive for a step that runs alone.
    company: Arc<RwLock<()>>,
}

/// The right to run one step; dropping it lets the next one run.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _company: Company,
}

enum Company {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

impl Turns {
    /// Waits until the step may run with `permit`.
    pub(crate) async fn with(&self, permit: OwnedSemaphorePermit, crash_count: i64) -> Turn {
        let company = Arc::clone(&self.company);
        let company = if crash_count >= CRASHES_BEFORE_ALONE {
            Company::Alone { _guard: company.write_owned().await }
        } else {
            Company::Shared { _guard: company.read_owned().await }
        };
        Turn { _permit: permit, _company: company }
    }

    /// Waits for a permit and then for the turn; `None` when the worker closes.
    pub(crate) async fn next(&self, permits: &Arc<Semaphore>, crash_count: i64) -> Option<Turn> {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        Some(self.with(permit, crash_count).await)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_task_with_two_crashes_runs_alone() {
        let (turns, permits) = (Turns::default(), Arc::new(Semaphore::new(10)));
        let company = turns.next(&permits, 0).await;
        let beside = turns.next(&permits, 1).await;
        let alone = turns.next(&permits, CRASHES_BEFORE_ALONE);
        let mut alone = std::pin::pin!(alone);
        assert!(alone.as_mut().now_or_never().is_none(), "others run");
        drop((company, beside));
        let turn = alone.await;
        assert!(turns.next(&permits, 0).now_or_never().is_none(), "it runs");
        drop(turn);
        assert!(turns.next(&permits, 0).now_or_never().is_some());
    }
}
