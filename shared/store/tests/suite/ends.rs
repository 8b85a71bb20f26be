//! Ends: one terminal write, with everything that goes with it, and nothing from those who come second.

use std::time::Duration;

use aig_domain::job::{ErrorCode, JobError, JobStatus, Outcome};
use aig_domain::task::Lease;
use aig_store::{Attempt, Delivery, DeliveryEnd, FIRST_EPOCH, JobEndTarget, Role, StepKind, TaskClaim, Work};
use futures_util::future::join_all;

use crate::support::{TestStore, both, completed, job_of};

both!(
    one_terminal_write,
    a_completed_job_has_its_result_and_its_event,
    an_event_may_be_claimed_with_the_end_of_its_job,
    failed_costs_nothing,
    cancel_takes_the_task_from_its_worker,
    cancel_of_a_job_that_ended_changes_nothing,
    cancel_and_end_at_once_write_one_end,
);

fn failed(code: ErrorCode) -> Outcome {
    Outcome::Failed(JobError::new(code, "no"))
}

async fn one_terminal_write(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    let ends = (0..10).map(|i| {
        let outcome = if i % 2 == 0 { completed() } else { failed(ErrorCode::ProviderError) };
        t.store.end_job(t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &outcome))
    });
    let won = join_all(ends).await.into_iter().filter(|won| won.as_ref().unwrap().is_some()).count();
    assert_eq!(won, 1);
    let read = t.store.job("acc_1", &job.id).await.unwrap().unwrap();
    assert!(read.status.is_terminal());
    assert_eq!(read.version, 2, "written once");
    assert_eq!(t.claim_from("webhook", "worker_1", 10).await.len(), 1, "one event");
}

async fn a_completed_job_has_its_result_and_its_event(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    let end = t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &completed());
    let event = end.event.clone().unwrap();
    assert!(t.store.end_job(end).await.unwrap().is_some());
    let read = t.store.job("acc_1", &job.id).await.unwrap().unwrap();
    assert_eq!(read.status, JobStatus::Completed);
    assert_eq!(Outcome::Completed(read.result.unwrap()), completed());
    assert!(read.expires_at.is_some() && read.completed_at.is_some());
    let delivery = t.claim_from("webhook", "worker_1", 10).await.remove(0);
    let Work::Webhook { event: claimed, .. } = &delivery.work else { panic!("{delivery:?}") };
    assert_eq!((&claimed.id, &claimed.body, &claimed.job_id), (&event.id, &event.body, &job.id));
    assert!(t.claim(10).await.is_empty(), "its task is done");
}

async fn an_event_may_be_claimed_with_the_end_of_its_job(t: &TestStore) {
    t.store.register_process("worker_1", Role::Worker, Duration::from_secs(10)).await.unwrap();
    let mut leases = Vec::new();
    for round in ["delivered", "rescued"] {
        t.accept("acc_1").await;
        let claimed = t.claim(1).await.remove(0);
        let mut end = t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &completed());
        let event = end.event.as_mut().unwrap();
        event.claim = Some(TaskClaim { worker: "worker_1".into(), claim_id: round.into() });
        let delivery = Delivery {
            lease: Lease { task_id: event.task_id.clone(), epoch: FIRST_EPOCH },
            event_id: event.id.clone(),
            attempt: Attempt { number: 1, at: t.now(), duration_ms: 1, status: Some(204), error: None },
            end: DeliveryEnd::Delivered,
        };
        let won = t.store.end_job(end.clone()).await.unwrap().unwrap();
        let secrets = t.store.webhook_secrets("acc_1").await.unwrap();
        assert_eq!(won.secrets, Some(secrets), "what signs it comes with it");
        assert!(t.store.end_job(end).await.unwrap().is_none(), "once");
        assert!(t.claim_from("webhook", "worker_2", 10).await.is_empty(), "nobody else gets it");
        leases.push(delivery);
    }
    assert!(t.store.record_delivery(leases[0].clone()).await.unwrap());
    assert!(!t.store.record_delivery(leases[0].clone()).await.unwrap(), "once");
    assert_eq!(t.store.release_claim("worker_1", "rescued").await.unwrap(), 1);
    let other = t.claim_from("webhook", "worker_2", 10).await.remove(0);
    assert!(other.lease.epoch > FIRST_EPOCH);
    assert!(!t.store.record_delivery(leases[1].clone()).await.unwrap(), "the first holder has lost it");
}

async fn failed_costs_nothing(t: &TestStore) {
    // What a provider may bill after a submit whose outcome is not known stays on record for the operator.
    for (code, submitting, reservation) in [
        (ErrorCode::ProviderError, false, "released"),
        (ErrorCode::Cancelled, false, "released"),
        (ErrorCode::ProviderOutcomeUnknown, true, "uncertain"),
        (ErrorCode::Poison, true, "uncertain"),
        (ErrorCode::DeadlineExceeded, true, "uncertain"),
        (ErrorCode::ContentRefused, true, "released"),
    ] {
        let job = t.accept("acc_1").await;
        let claimed = t.claim(1).await.remove(0);
        if submitting {
            t.step(&claimed, StepKind::Submitting).await;
        }
        let end = t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &failed(code));
        assert!(t.store.end_job(end).await.unwrap().is_some());
        let read = t.store.job("acc_1", &job.id).await.unwrap().unwrap();
        assert_eq!(read.cost, aig_domain::Nano::ZERO);
        assert_eq!(t.store.reservation_state(&job.id).await.unwrap().as_deref(), Some(reservation), "{code:?}");
    }
}

async fn cancel_takes_the_task_from_its_worker(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.step(&claimed, StepKind::Submitting).await;
    t.step(&claimed, StepKind::Submitted("upstream_1".into())).await;
    let end = t.end(JobEndTarget::Cancel, &job, &failed(ErrorCode::Cancelled));
    let won = t.store.end_job(end).await.unwrap().unwrap();
    assert_eq!((won.worker.as_deref(), won.provider_task.as_deref()), (Some("worker_1"), Some("upstream_1")));
    let late = t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &completed());
    assert!(t.store.end_job(late).await.unwrap().is_none());
    let read = t.store.job("acc_1", &job.id).await.unwrap().unwrap();
    assert_eq!(read.error.unwrap().code, ErrorCode::Cancelled);
    assert!(read.cancelled_at.is_some());
}

async fn cancel_of_a_job_that_ended_changes_nothing(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.store.end_job(t.end(JobEndTarget::Lease(claimed.lease.clone()), &job, &completed())).await.unwrap();
    let end = t.end(JobEndTarget::Cancel, &job, &failed(ErrorCode::Cancelled));
    assert!(t.store.end_job(end).await.unwrap().is_none());
    assert_eq!(t.store.job("acc_1", &job.id).await.unwrap().unwrap().status, JobStatus::Completed);
}

async fn cancel_and_end_at_once_write_one_end(t: &TestStore) {
    for _ in 0..20 {
        let job = t.accept("acc_1").await;
        let claimed = t.claim(1).await.remove(0);
        let (a, b) = tokio::join!(
            t.store.end_job(t.end(JobEndTarget::Cancel, &job, &failed(ErrorCode::Cancelled))),
            t.store.end_job(t.end(JobEndTarget::Lease(claimed.lease.clone()), &job, &completed())),
        );
        assert_eq!(u8::from(a.unwrap().is_some()) + u8::from(b.unwrap().is_some()), 1);
        let read = t.store.job("acc_1", &job.id).await.unwrap().unwrap();
        assert_eq!(read.result.is_some(), read.status == JobStatus::Completed);
    }
    assert_eq!(t.claim_from("webhook", "worker_1", 64).await.len(), 20);
}
