//! Ending a job: its terminal state, its reservation, its event and the event's task, all or nothing.

use aig_domain::job::{ErrorCode, Job, JobError, Outcome};
use aig_domain::task::{Lease, WEBHOOK_QUEUE};
use aig_domain::{Error, id};
use aig_store::{Claimed, FIRST_EPOCH, JobEnd, JobEndTarget, NewEvent, StoreError, TaskClaim, WebhookEvent, Work};

use crate::Tasks;

/// What came of [`Tasks::end`].
#[derive(Debug)]
pub struct Ended {
    /// Whether the job now stands as it was to be ended. `false` when the lease was lost: then somebody else writes the end.
    pub won: bool,
    /// The delivery of its event, in the hands of the caller that asked for it.
    pub delivery: Option<Claimed>,
}

impl Tasks {
    /// Ends `job` with `outcome` on behalf of the worker that holds `lease`. When `deliverer` names that worker, it gets the
    /// delivery of the job's event with the same transaction, as if it had claimed it.
    ///
    /// # Errors
    /// When the store fails; the lease then decides who goes on.
    pub async fn end(
        &self,
        lease: &Lease,
        job: &Job,
        outcome: &Outcome,
        deliverer: Option<&str>,
    ) -> Result<Ended, Error> {
        let ended = self.write_end(JobEndTarget::Lease(lease.clone()), job, outcome, deliverer).await?;
        if ended.won {
            return Ok(ended);
        }
        // An earlier try of the same end may have been stored though its answer was lost. Then the lease is gone because we
        // ended it, and the file, whose key no other holder's has, is the job's own.
        let Outcome::Completed(result) = outcome else { return Ok(ended) };
        let stored = self.store.job_for_file(&job.id).await?;
        let won = stored.is_some_and(|stored| stored.result.as_ref() == Some(result));
        Ok(Ended { won, delivery: None })
    }

    pub(crate) async fn write_end(
        &self,
        target: JobEndTarget,
        job: &Job,
        outcome: &Outcome,
        deliverer: Option<&str>,
    ) -> Result<Ended, Error> {
        let now = self.clock.now();
        let job = job.clone().ended(outcome, now);
        let mut event = self.event(&job)?;
        let mut under_way = None;
        if let (Some(event), Some(worker)) = (&mut event, deliverer) {
            let claim = TaskClaim { worker: worker.to_owned(), claim_id: id::new("claim_", now) };
            under_way = Some(self.lost_claims.under_way(&claim));
            event.claim = Some(claim);
        }
        let claimed = event.as_ref().filter(|event| event.claim.is_some()).map(|event| delivery_of(&job, event));
        let to_be_claimed = event.as_ref().filter(|event| event.claim.is_none()).map(|event| event.id.clone());
        let code = job.error.as_ref().map_or("none", |error| error.code.as_str());
        let (modality, status) = (job.modality.as_str(), job.status.as_str());
        let won = self.store.end_job(JobEnd { target, job, event }).await;
        // What nobody would deliver stays on the list of lost claims.
        let unheard = match &won {
            Ok(Some(won)) => won.secrets.is_none(),
            Ok(None) => false,
            Err(error) => matches!(error, StoreError::Database { commit_unknown: true, .. }),
        };
        if let Some(under_way) = under_way.filter(|_| !unheard) {
            under_way.answered();
        }
        let Some(won) = won? else { return Ok(Ended { won: false, delivery: None }) };
        metrics::counter!("aig_jobs_ended_total", "modality" => modality, "status" => status, "error_code" => code)
            .increment(1);
        if let Some(event_id) = to_be_claimed {
            self.ring(WEBHOOK_QUEUE, event_id);
        }
        let delivery = claimed.zip(won.secrets).map(|((lease, event), secrets)| Claimed {
            lease,
            attempt: 0,
            crash_count: 0,
            work: Work::Webhook { event, secrets },
        });
        Ok(Ended { won: true, delivery })
    }

    /// The one event of a job that ended. Its body is made here, once, so that every attempt sends the same bytes.
    fn event(&self, job: &Job) -> Result<Option<NewEvent>, Error> {
        let Some(url) = job.webhook_url.clone() else { return Ok(None) };
        let body = serde_json::to_string(&self.links.webhook_record(job)).map_err(|error| {
            tracing::error!(job = job.id, %error, "a webhook body cannot be written");
            Error::internal()
        })?;
        let now = job.updated_at;
        Ok(Some(NewEvent { id: id::new("evt_", now), task_id: id::new("task_", now), url, body, claim: None }))
    }
}

/// The delivery of a job's event as its first holder has it.
fn delivery_of(job: &Job, event: &NewEvent) -> (Lease, WebhookEvent) {
    let lease = Lease { task_id: event.task_id.clone(), epoch: FIRST_EPOCH };
    let event = WebhookEvent {
        id: event.id.clone(),
        account_id: job.account_id.clone(),
        job_id: job.id.clone(),
        url: event.url.clone(),
        body: event.body.clone(),
    };
    (lease, event)
}

/// What a cancelled job says.
pub(crate) fn cancelled() -> Outcome {
    Outcome::Failed(JobError::new(ErrorCode::Cancelled, "The job was cancelled by its owner. Nothing was charged."))
}
