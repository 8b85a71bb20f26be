//! Making the media of a job: submit, poll, fetch and keep the result, end.
//!
//! Each phase is on record before it begins, so that whoever claims the task after a crash knows what may have happened:
//! nothing was sent (submit), a submit was sent and its outcome not recorded (repeat it only under an idempotency key), or
//! the provider has the work (poll). Tested over real HTTP by `tests/it`.

use std::sync::Arc;
use std::time::Duration;

use aig_domain::job::{ErrorCode, Job, JobError, JobResult, Outcome, file_key};
use aig_domain::retry::{exponential, jitter};
use aig_domain::task::WEBHOOK_QUEUE;
use aig_providers::{JobCall, JobProvider, Poll, ProviderError, ProviderErrorKind, ProviderTask};
use aig_store::{Claim, StepKind};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::store_result::{self, NotStored};
use super::submit::{self, Submitted};
use super::{Held, Lost};
use crate::consume;
use crate::persist::{Unwritten, until_stored};
use crate::turn::Turn;
use crate::watch::Watched;

/// The longest wait after a poll or download that failed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a provider may say that it does not know the work before it is believed.
const NOT_FOUND_LIMIT: u32 = 3;
/// The shortest time between two records of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// How many earlier holders of a task are cleaned up after.
const MOST_EARLIER: i64 = 8;

/// What a handler answers.
pub(crate) enum Next {
    /// The result is stored.
    Done(JobResult),
    /// Go on at once, in the same turn.
    Now,
    /// Go on after this long.
    Later(Duration),
    /// Back to the queue, to begin again after this long.
    Retry { unknown: bool, after: Duration, error: String },
    /// There will be no result.
    Fail(JobError),
}

/// One job in the hands of this worker.
pub(crate) struct Generate {
    pub(crate) held: Held,
    pub(crate) job: Job,
    pub(crate) call: JobCall,
    pub(crate) provider: Arc<dyn JobProvider>,
    state: State,
    /// Polls and downloads that failed one after the other.
    failures: u32,
    /// Polls in a row to which the provider said that it does not know the work.
    unknown: u32,
    polls: u32,
    recorded: (Option<i64>, tokio::time::Instant),
}

enum State {
    /// Nothing polls yet: the claim says what may be sent. `None` only while a step uses it.
    Submit(Option<Claim>),
    Polling(Submitted),
}

/// Ends a job that brought its worker down again and again.
pub(crate) async fn bury(held: &Held, job: &Job) {
    let error = JobError::new(
        ErrorCode::Poison,
        "The job brought its worker down three times and was given up. Nothing was charged.",
    );
    end(held, job, &Outcome::Failed(error)).await;
}

/// Runs one claimed generate task to its end, or hands it back.
pub(crate) async fn run(held: Held, job: Job, claim: Claim, permits: Arc<Semaphore>, turn: Turn) {
    let watched = held.worker.watch.begin(&job.id);
    let Some(provider) = held.worker.app.providers.jobs(&job.provider) else {
        let error = format!("The provider `{}` is not configured any more. Nothing was charged.", job.provider);
        return end(&held, &job, &Outcome::Failed(JobError::new(ErrorCode::ProviderError, error))).await;
    };
    let state = match claim {
        Claim::Resume(task) => State::Polling(Submitted { task: ProviderTask(task), recorded: true }),
        other => State::Submit(Some(other)),
    };
    let call = call(&job, held.attempt);
    let recorded = (job.progress, tokio::time::Instant::now());
    let mut task = Generate { held, job, call, provider, state, failures: 0, unknown: 0, polls: 0, recorded };
    // Lost: somebody else has it, or the process ends; either way there is nothing left to write.
    let _ = task.drive(&permits, turn, &watched).await;
}

impl Generate {
    async fn drive(&mut self, permits: &Arc<Semaphore>, turn: Turn, watched: &Watched) -> Result<(), Lost> {
        let mut turn = Some(turn);
        let worker = Arc::clone(&self.held.worker);
        loop {
            // A submit is not cut by a cancel: its answer is the only way to know what to call off.
            let submitting = matches!(self.state, State::Submit(_));
            let next = tokio::select! {
                () = watched.cancelled.cancelled(), if !submitting => return self.cancel_upstream().await,
                () = worker.abort.cancelled() => return self.hand_back().await,
                next = self.step() => next?,
            };
            match next {
                Next::Done(result) => {
                    end(&self.held, &self.job, &Outcome::Completed(result)).await;
                    return Ok(());
                }
                Next::Fail(error) => {
                    let timed_out = error.code == ErrorCode::DeadlineExceeded;
                    end(&self.held, &self.job, &Outcome::Failed(error)).await;
                    return if timed_out { self.cancel_upstream().await } else { Ok(()) };
                }
                Next::Retry { unknown, after, error } => {
                    tracing::info!(error, ?after, "the job goes back to its queue");
                    let at = worker.app.clock.now().plus(after).min(self.job.deadline_at);
                    return self.held.step(StepKind::Retry { unknown, at, error }).await;
                }
                Next::Now => {}
                Next::Later(after) => {
                    // A job that waits holds no permit, unless too many wait already.
                    let parked = Arc::clone(&worker.parked).try_acquire_owned().ok();
                    if parked.is_some() {
                        turn = None;
                    }
                    let wait = after.min(worker.app.clock.now().until(self.job.deadline_at));
                    tokio::select! {
                        () = watched.cancelled.cancelled() => return self.cancel_upstream().await,
                        () = worker.shutdown.stopping() => return self.hand_back().await,
                        () = tokio::time::sleep(wait) => {}
                    }
                    drop(parked);
                    if turn.is_none() {
                        let left = worker.app.clock.now().until(self.job.deadline_at);
                        turn = tokio::select! {
                            () = watched.cancelled.cancelled() => return self.cancel_upstream().await,
                            () = worker.shutdown.stopping() => return self.hand_back().await,
                            turn = worker.turns.next(permits, self.held.crash_count) => turn,
                            // The next step is then to fail, which needs no permit.
                            () = tokio::time::sleep(left) => None,
                        };
                    }
                }
            }
        }
    }

    /// The next step. Everything it awaits is bounded: by the adapter's timeouts, or by the job's deadline.
    async fn step(&mut self) -> Result<Next, Lost> {
        let left = self.held.worker.app.clock.now().until(self.job.deadline_at);
        if left.is_zero() {
            return Ok(Next::Fail(deadline_exceeded()));
        }
        if !self.held.worker.lease.is_good() {
            return Ok(Next::Later(Duration::from_secs(1)));
        }
        match &mut self.state {
            State::Submit(claim) => {
                // A step that was dropped half-way is never stepped again, so the claim is always there.
                let claim = claim.take().ok_or(Lost)?;
                match submit::submit(&self.held, &self.call, &*self.provider, claim).await? {
                    Ok(submitted) => {
                        self.state = State::Polling(submitted);
                        Ok(Next::Now)
                    }
                    Err(next) => Ok(next),
                }
            }
            State::Polling(submitted) => {
                let task = submitted.task.clone();
                match tokio::time::timeout(left, self.poll(&task)).await {
                    Ok(next) => next,
                    Err(_) => Ok(Next::Fail(deadline_exceeded())),
                }
            }
        }
    }

    async fn poll(&mut self, task: &ProviderTask) -> Result<Next, Lost> {
        let poll = self.provider.poll(task, &self.call, self.polls).await;
        self.polls = self.polls.saturating_add(1);
        match poll {
            Ok(Poll::Pending { progress, after }) => {
                (self.failures, self.unknown) = (0, 0);
                self.record_id().await?;
                self.record(progress).await?;
                Ok(Next::Later(after))
            }
            Ok(Poll::Failed(error)) => Ok(Next::Fail(error)),
            Ok(Poll::Done(artifact)) => {
                self.storing(task).await?;
                match store_result::store_result(self, &artifact).await {
                    Ok(result) => Ok(Next::Done(result)),
                    Err(NotStored::Never(error)) => Ok(Next::Fail(error)),
                    Err(NotStored::Yet(error)) => {
                        // Back to polling on record too: waiting for a provider is no crash.
                        self.held.step(StepKind::Submitted(task.0.clone())).await?;
                        Ok(self.failed(&error))
                    }
                }
            }
            Err(error) => {
                self.record_id().await?;
                Ok(self.failed(&error))
            }
        }
    }

    /// Records the provider's id, unless it is on record.
    async fn record_id(&mut self) -> Result<(), Lost> {
        if let State::Polling(Submitted { task, recorded: recorded @ false }) = &mut self.state {
            let step = StepKind::Submitted(task.0.clone());
            submit::record(&self.held, &self.call, &*self.provider, task, step).await?;
            *recorded = true;
        }
        Ok(())
    }

    /// Records that the result is about to be fetched, and the provider's id with it.
    async fn storing(&mut self, task: &ProviderTask) -> Result<(), Lost> {
        let known = matches!(self.state, State::Polling(Submitted { recorded: true, .. }));
        let step = StepKind::Storing((!known).then(|| task.0.clone()));
        submit::record(&self.held, &self.call, &*self.provider, task, step).await?;
        if let State::Polling(submitted) = &mut self.state {
            submitted.recorded = true;
        }
        Ok(())
    }

    /// After a poll or a download failed: again later, until the deadline. The work is paid for, so that only a clear word of
    /// the provider ends it: that it refuses the content, or, three times in a row, that it does not know the work.
    fn failed(&mut self, error: &ProviderError) -> Next {
        self.failures += 1;
        self.unknown = if error.kind == ProviderErrorKind::NotFound { self.unknown + 1 } else { 0 };
        tracing::info!(%error, failures = self.failures, "the provider failed; asking again");
        if self.unknown >= NOT_FOUND_LIMIT {
            return Next::Fail(JobError::new(
                ErrorCode::ProviderError,
                "The provider accepted the job and lost it. Nothing was charged. Submit it again.",
            ));
        }
        if error.kind == ProviderErrorKind::ContentRefused {
            return Next::Fail(job_error(error));
        }
        let wait = jitter(exponential(Duration::from_millis(500), self.failures - 1, LONGEST_WAIT), 20);
        Next::Later(error.retry_after.map_or(wait, |wish| wish.clamp(wait, LONGEST_WAIT.max(wait))))
    }

    async fn record(&mut self, progress: Option<i64>) -> Result<(), Lost> {
        let (last, at) = self.recorded;
        let Some(now) = progress.filter(|now| Some(*now) != last && at.elapsed() >= PROGRESS_EVERY) else {
            return Ok(());
        };
        self.recorded = (progress, tokio::time::Instant::now());
        let now = now.clamp(0, 100);
        self.held.step(StepKind::Progress(now)).await?;
        // What the record of the end says too, unless it is complete.
        self.job.progress = Some(now);
        Ok(())
    }

    /// Tells the provider to stop, as a favour; the job itself has ended.
    async fn cancel_upstream(&self) -> Result<(), Lost> {
        if let State::Polling(submitted) = &self.state {
            submit::call_off(&*self.provider, &submitted.task).await;
        }
        Ok(())
    }

    async fn hand_back(&mut self) -> Result<(), Lost> {
        self.record_id().await?;
        self.held.release().await;
        Ok(())
    }
}

/// Writes the job's end, unless the lease was lost.
async fn end(held: &Held, job: &Job, outcome: &Outcome) {
    let app = &held.worker.app;
    let permit = job.webhook_url.as_ref().and_then(|_| held.worker.to_deliver());
    // Only the first try takes the delivery along: what became of it is not known after a failure.
    let mut deliverer = permit.as_ref().map(|_| held.worker.lease.id());
    let write = || {
        let deliverer = deliverer.take();
        async move { app.tasks.end(&held.lease, job, outcome, deliverer.as_deref()).await }
    };
    let ended = until_stored(&held.worker, "the end of a job", write).await.map(|ended| {
        if let (Some(delivery), Some(permit)) = (ended.delivery, permit) {
            consume::start(&held.worker, WEBHOOK_QUEUE, delivery, permit);
        }
        ended.won
    });
    match (ended, outcome) {
        (Ok(true), Outcome::Completed(result)) => {
            tracing::info!("the job is completed");
            delete_earlier(held, &job.id, &result.filename).await;
        }
        (Ok(true), Outcome::Failed(error)) => tracing::info!(code = error.code.as_str(), "the job failed"),
        (Ok(false), Outcome::Completed(result)) => delete_unless_named(held, &job.id, &result.file_key).await,
        (Err(Unwritten::Impossible), _) => held.crash().await,
        (Ok(false), Outcome::Failed(_)) | (Err(Unwritten::Stopping), _) => {}
    }
}

/// Deletes what earlier holders of the task may have stored before they lost it.
async fn delete_earlier(held: &Held, job_id: &str, filename: &str) {
    let epoch = held.lease.epoch;
    for earlier in (epoch - MOST_EARLIER).max(1)..epoch {
        if let Err(error) = held.worker.app.files.delete(&file_key(job_id, earlier, filename)).await {
            tracing::warn!(%error, "a file that nobody needs was not deleted");
        }
    }
}

/// Deletes a file that somebody else's end made useless. The end that was just refused may have been our own, committed
/// before its answer was lost, so the row is asked first.
async fn delete_unless_named(held: &Held, job_id: &str, file_key: &str) {
    let app = &held.worker.app;
    let named = match app.store.job_for_file(job_id).await {
        Ok(job) => job.and_then(|job| job.result).is_some_and(|result| result.file_key == file_key),
        Err(error) => {
            tracing::warn!(%error, "a file that may be nobody's is kept");
            return;
        }
    };
    if !named && let Err(error) = app.files.delete(file_key).await {
        tracing::warn!(%error, "a file that nobody needs was not deleted");
    }
}

/// The job as its provider sees it.
fn call(job: &Job, attempt: u32) -> JobCall {
    // Our own text, written by the route that accepted the job.
    let params: Map<String, Value> = serde_json::from_str(&job.params).unwrap_or_default();
    let model = job.model.split_once('/').map_or(job.model.as_str(), |(_, name)| name);
    JobCall { job_id: job.id.clone(), modality: job.modality, model: model.to_owned(), params, attempt }
}

fn deadline_exceeded() -> JobError {
    JobError::new(
        ErrorCode::DeadlineExceeded,
        "The job took longer than its deadline and was given up. Nothing was charged.",
    )
}

/// What a provider's refusal means for the job.
pub(crate) fn job_error(error: &ProviderError) -> JobError {
    let code = match error.kind {
        ProviderErrorKind::InvalidInput => ErrorCode::InvalidInput,
        ProviderErrorKind::ContentRefused => ErrorCode::ContentRefused,
        _ => ErrorCode::ProviderError,
    };
    JobError::new(code, error.message.clone())
}
