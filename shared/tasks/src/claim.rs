//! Claiming due tasks, and giving up claims whose answer never came, those that go with the end of a job included.
//!
//! A claim that was committed although its caller got no answer leaves tasks that are running and in nobody's hands, under a
//! worker that goes on living. So a claim is on a list from before it is sent until it is answered one way or the other, also
//! when its caller goes away in the middle, and what stays on the list is released.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aig_domain::{Error, id};
use aig_store::{ClaimRequest, Claimed, StoreError, TaskClaim};

use crate::Tasks;

/// For how long a claim without an answer is looked for: longer than the database lets a transaction linger whose client is
/// gone.
const MAY_COME_THROUGH: Duration = Duration::from_secs(30);
/// The most claims on the list. What is forgotten beyond that returns when its worker ends.
const MOST: usize = 1024;

/// Claims without an answer.
#[derive(Clone, Default)]
pub(crate) struct LostClaims(Arc<Mutex<Vec<LostClaim>>>);

#[derive(Clone, PartialEq, Eq)]
struct LostClaim {
    worker: String,
    claim_id: String,
    since: Instant,
}

/// A claim under way; when it is dropped without an answer, it is lost.
pub(crate) struct UnderWay {
    claim: Option<LostClaim>,
    lost: LostClaims,
}

impl UnderWay {
    /// It is known what the claim took.
    pub(crate) fn answered(mut self) {
        self.claim = None;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            let mut lost = self.lost.lock();
            if lost.len() < MOST {
                lost.push(LostClaim { since: Instant::now(), ..claim });
            }
        }
    }
}

impl LostClaims {
    /// Puts a claim on the list, in case no answer comes.
    pub(crate) fn under_way(&self, claim: &TaskClaim) -> UnderWay {
        let TaskClaim { worker, claim_id } = claim.clone();
        UnderWay { claim: Some(LostClaim { worker, claim_id, since: Instant::now() }), lost: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LostClaim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tasks {
    /// Claims at most `limit` (up to 64) of the best due tasks of `queue` for `worker`; fewer when there are no more.
    ///
    /// # Errors
    /// A 503 when the store is full or down. What it may have taken all the same comes back by
    /// [`Tasks::release_lost_claims`].
    pub async fn claim(&self, worker: &str, queue: &'static str, limit: usize) -> Result<Vec<Claimed>, Error> {
        let claim = TaskClaim { worker: worker.to_owned(), claim_id: id::new("claim_", self.clock.now()) };
        let under_way = self.lost_claims.under_way(&claim);
        let limit = u32::try_from(limit).unwrap_or(64);
        let TaskClaim { worker, claim_id } = claim;
        let claimed = self.store.claim(ClaimRequest { claim_id, worker, queue, limit }).await;
        if !matches!(claimed, Err(StoreError::Database { commit_unknown: true, .. })) {
            under_way.answered();
        }
        Ok(claimed?)
    }

    /// Puts back what claims took that nobody heard of; gives how many tasks. To be called about once a second.
    ///
    /// # Errors
    /// When the store is down; the claims stay on the list.
    pub async fn release_lost_claims(&self) -> Result<u64, Error> {
        let lost = self.lost_claims.lock().clone();
        let mut released = 0;
        for claim in lost {
            let looked = Instant::now();
            released += self.store.release_claim(&claim.worker, &claim.claim_id).await?;
            if looked.saturating_duration_since(claim.since) > MAY_COME_THROUGH {
                self.lost_claims.lock().retain(|other| *other != claim);
            }
        }
        Ok(released)
    }
}
