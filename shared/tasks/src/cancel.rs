//! Cancelling a job: one transaction, then the worker and the provider are told.

use aig_cache::Signal;
use aig_domain::Error;
use aig_domain::job::Job;
use aig_store::JobEndTarget;

use crate::Tasks;
use crate::finish::cancelled;

impl Tasks {
    /// Cancels a job of `account_id`; gives the job as it then stands. One that had ended before comes back as it is.
    /// `None` when there is no such job, or it is somebody else's.
    ///
    /// The worker that holds it hears of it on the bus, stops, and asks the provider to stop too, as a favour.
    ///
    /// # Errors
    /// A 503 when the store is full or down.
    pub async fn cancel(&self, account_id: &str, job_id: &str) -> Result<Option<Job>, Error> {
        let Some(job) = self.store.job(account_id, job_id).await? else { return Ok(None) };
        if job.status.is_terminal() {
            return Ok(Some(job));
        }
        if self.write_end(JobEndTarget::Cancel, &job, &cancelled(), None).await?.won {
            self.bus.send(Signal::JobCancelled { job_id: job.id.clone() }).await;
        }
        Ok(self.store.job(account_id, job_id).await?)
    }
}
