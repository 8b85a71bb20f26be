//! Submitting a job: intent first, then the call, then the provider's id. The one place where a job may be sent twice, and
//! why it is not.
//!
//! The id is recorded at once where losing it would lose the work. A provider that takes an idempotency key gives the same id
//! again when it is asked again, so there the id may wait for the first poll, whose outcome is then recorded with it.

use std::time::Duration;

use aig_domain::budget::{Billing, Reservation};
use aig_domain::job::{ErrorCode, JobError};
use aig_domain::retry::{exponential, jitter};
use aig_providers::{JobCall, JobProvider, ProviderError, ProviderTask};
use aig_store::{Claim, StepKind};

use super::generate::{Next, job_error};
use super::{Held, Lost};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How long the provider has to take a cancel.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// The work at its provider.
pub(super) struct Submitted {
    pub(super) task: ProviderTask,
    /// Whether the provider's id is on record.
    pub(super) recorded: bool,
}

/// Submits the job if `claim` allows it; gives the provider's id, or what to do next.
pub(super) async fn submit(
    held: &Held,
    call: &JobCall,
    provider: &dyn JobProvider,
    claim: Claim,
) -> Result<Result<Submitted, Next>, Lost> {
    let reservation = match claim {
        Claim::Resume(task) => return Ok(Ok(Submitted { task: ProviderTask(task), recorded: true })),
        Claim::Fresh(reservation) => {
            held.step(StepKind::Submitting).await?;
            reservation
        }
        Claim::Unknown(intent) => match intent.repeat(provider.idempotent_submit()) {
            Ok(reservation) => {
                // Again, so that it counts as a crash if this brings the worker down.
                held.step(StepKind::Submitting).await?;
                return send(held, call, provider, reservation, true).await;
            }
            Err(_) => return Ok(Err(Next::Fail(outcome_unknown()))),
        },
    };
    send(held, call, provider, reservation, false).await
}

/// Sends the job. Where it is `repeated`, the provider may have it from before, whatever it says now.
async fn send(
    held: &Held,
    call: &JobCall,
    provider: &dyn JobProvider,
    reservation: Reservation,
    repeated: bool,
) -> Result<Result<Submitted, Next>, Lost> {
    let submission = provider.submit(reservation, call).await;
    let attempts_left = held.attempt + 1 < held.worker.app.config.tasks.submit_attempts;
    let sent = repeated || *submission.receipt.billing() != Billing::NotSent;
    held.worker.app.store.ledger().record_submit(submission.receipt);
    match submission.outcome {
        Ok(task) if provider.idempotent_submit() => Ok(Ok(Submitted { task, recorded: false })),
        Ok(task) => {
            record(held, call, provider, &task, StepKind::Submitted(task.0.clone())).await?;
            Ok(Ok(Submitted { task, recorded: true }))
        }
        Err(error) => Ok(Err(after_failure(&error, sent, provider.idempotent_submit(), held.attempt, attempts_left))),
    }
}

/// Records `step`, the first one that names the provider's id.
pub(super) async fn record(
    held: &Held,
    call: &JobCall,
    provider: &dyn JobProvider,
    task: &ProviderTask,
    step: StepKind,
) -> Result<(), Lost> {
    let recorded = held.step(step).await;
    if recorded.is_err() {
        cancel_if_cancelled(held, call, provider, task).await;
    }
    recorded
}

/// A job that was cancelled while it was being submitted: nobody but us knows what to call off at the provider. When the
/// lease was lost for another reason, whoever has it now goes on with the same work.
async fn cancel_if_cancelled(held: &Held, call: &JobCall, provider: &dyn JobProvider, task: &ProviderTask) {
    let Ok(Some(job)) = held.worker.app.store.job_for_file(&call.job_id).await else { return };
    if job.cancelled_at.is_some() {
        call_off(provider, task).await;
    }
}

/// Tells the provider to stop, as a favour; the job itself has ended.
pub(super) async fn call_off(provider: &dyn JobProvider, task: &ProviderTask) {
    if !matches!(tokio::time::timeout(CANCEL_TIMEOUT, provider.cancel(task)).await, Ok(Ok(()))) {
        tracing::info!("the provider was not told to stop");
    }
}

/// What follows a submit that failed. `sent`: the provider may have the job all the same.
fn after_failure(error: &ProviderError, sent: bool, idempotent: bool, attempt: u32, attempts_left: bool) -> Next {
    tracing::info!(%error, sent, attempt, "the provider did not take the job");
    if sent && !(idempotent && attempts_left) {
        return Next::Fail(outcome_unknown());
    }
    if !attempts_left || !(sent || error.is_transient()) {
        return Next::Fail(job_error(error));
    }
    let wait = jitter(exponential(FIRST_WAIT, attempt, LONGEST_WAIT), 20);
    let after = error.retry_after.map_or(wait, |wish| wish.max(wait).min(LONGEST_WAIT * 2));
    Next::Retry { unknown: sent, after, error: error.message.clone() }
}

fn outcome_unknown() -> JobError {
    JobError::new(
        ErrorCode::ProviderOutcomeUnknown,
        "The job was sent to the provider and its answer was lost. It was not sent again, since that could have cost \
         twice. Nothing was charged. Submit a new job if you still want the result.",
    )
}

#[cfg(test)]
mod tests {
    use aig_providers::ProviderErrorKind::{self, Auth, InvalidInput, RateLimited, Unavailable};

    use super::*;

    fn next(kind: ProviderErrorKind, sent: bool, idempotent: bool, left: bool) -> &'static str {
        match after_failure(&ProviderError::new(kind, "no"), sent, idempotent, 0, left) {
            Next::Retry { unknown: true, .. } => "repeat",
            Next::Retry { unknown: false, .. } => "retry",
            Next::Fail(error) => error.code.as_str(),
            Next::Done(_) | Next::Now | Next::Later(_) => "?",
        }
    }

    #[test]
    fn a_submit_whose_outcome_is_unknown_is_repeated_only_under_an_idempotency_key() {
        assert_eq!(next(Unavailable, true, false, true), "provider_outcome_unknown");
        assert_eq!(next(Unavailable, true, true, true), "repeat");
        assert_eq!(next(Unavailable, true, true, false), "provider_outcome_unknown");
    }

    #[test]
    fn a_submit_that_was_not_sent_is_retried_while_that_can_help() {
        assert_eq!(next(Unavailable, false, false, true), "retry");
        assert_eq!(next(RateLimited, false, false, true), "retry");
        assert_eq!(next(Unavailable, false, false, false), "provider_error");
        assert_eq!(next(InvalidInput, false, true, true), "invalid_input");
        assert_eq!(next(Auth, false, true, true), "provider_error");
    }
}
