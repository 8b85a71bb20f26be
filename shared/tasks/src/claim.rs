//! Claiming due tasks.

use aig_domain::{Error, id};
use aig_store::{ClaimRequest, Claimed};

use crate::Tasks;

impl Tasks {
    /// Claims at most `limit` (up to 64) of the best due tasks of `queue` for `worker`; fewer when there are no more.
    ///
    /// # Errors
    /// A 503 when the store is full or down.
    pub async fn claim(&self, worker: &str, queue: &'static str, limit: usize) -> Result<Vec<Claimed>, Error> {
        let request = ClaimRequest {
            claim_id: id::new("claim_", self.clock.now()),
            worker: worker.to_owned(),
            queue,
            limit: u32::try_from(limit).unwrap_or(64),
        };
        Ok(self.store.claim(request).await?)
    }
}
