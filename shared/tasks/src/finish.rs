//! Ending a job: its terminal state, its reservation, its event and the event's task, all or nothing.

use aig_domain::job::{ErrorCode, Job, JobError, Outcome};
use aig_domain::task::{Lease, WEBHOOK_QUEUE};
use aig_domain::{Error, id};
use aig_store::{JobEnd, JobEndTarget, NewEvent, Won};

use crate::Tasks;

impl Tasks {
    /// Ends `job` with `outcome` on behalf of the worker that holds `lease`. `false` when the lease was lost: then somebody
    /// else writes the end.
    ///
    /// # Errors
    /// When the store fails; the lease then decides who goes on.
    pub async fn end(&self, lease: &Lease, job: &Job, outcome: &Outcome) -> Result<bool, Error> {
        if self.write_end(JobEndTarget::Lease(lease.clone()), job, outcome).await?.is_some() {
            return Ok(true);
        }
        // An earlier try of the same end may have been stored though its answer was lost. Then the lease is gone because we
        // ended it, and the file, whose key no other holder's has, is the job's own.
        let Outcome::Completed(result) = outcome else { return Ok(false) };
        let stored = self.store.job_for_file(&job.id).await?;
        Ok(stored.is_some_and(|stored| stored.result.as_ref() == Some(result)))
    }

    pub(crate) async fn write_end(
        &self,
        target: JobEndTarget,
        job: &Job,
        outcome: &Outcome,
    ) -> Result<Option<Won>, Error> {
        let now = self.clock.now();
        let job = job.clone().ended(outcome, now);
        let event = self.event(&job)?;
        let event_id = event.as_ref().map(|event| event.id.clone());
        let code = job.error.as_ref().map_or("none", |error| error.code.as_str());
        let (modality, status) = (job.modality.as_str(), job.status.as_str());
        let won = self.store.end_job(JobEnd { target, job, event }).await?;
        if won.is_some() {
            metrics::counter!("aig_jobs_ended_total", "modality" => modality, "status" => status, "error_code" => code)
                .increment(1);
            if let Some(event_id) = event_id {
                self.ring(WEBHOOK_QUEUE, event_id);
            }
        }
        Ok(won)
    }

    /// The one event of a job that ended. Its body is made here, once, so that every attempt sends the same bytes.
    fn event(&self, job: &Job) -> Result<Option<NewEvent>, Error> {
        let Some(url) = job.webhook_url.clone() else { return Ok(None) };
        let body = serde_json::to_string(&self.links.webhook_record(job)).map_err(|error| {
            tracing::error!(job = job.id, %error, "a webhook body cannot be written");
            Error::internal()
        })?;
        let now = job.updated_at;
        Ok(Some(NewEvent { id: id::new("evt_", now), task_id: id::new("task_", now), url, body }))
    }
}

/// What a cancelled job says.
pub(crate) fn cancelled() -> Outcome {
    Outcome::Failed(JobError::new(ErrorCode::Cancelled, "The job was cancelled by its owner. Nothing was charged."))
}
