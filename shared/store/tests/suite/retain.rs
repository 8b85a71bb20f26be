//! Retention: results end after a week, and what nobody needs any more goes.

use std::time::Duration;

use aig_domain::job::RESULT_KEPT;
use aig_store::{JobEndTarget, Role};

use crate::support::{TestStore, both, completed};

both!(results_end_after_their_time, old_rows_go);

async fn results_end_after_their_time(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.store.end_job(t.end(JobEndTarget::Lease(claimed.lease.clone()), &job, &completed())).await.unwrap();
    t.clock.forward(RESULT_KEPT.saturating_sub(Duration::from_secs(1)));
    assert!(t.store.expired_results(None).await.unwrap().is_empty());
    t.clock.forward(Duration::from_secs(1));
    let expired = t.store.expired_results(None).await.unwrap();
    assert_eq!(
        (expired[0].job_id.as_str(), expired[0].file_key.as_deref()),
        (job.id.as_str(), Some("jobs/x/1/video.mp4"))
    );
    assert!(t.store.expired_results(expired.last()).await.unwrap().is_empty(), "the next page");
    t.store.forget_results(&[&job.id]).await.unwrap();
    assert!(t.store.expired_results(None).await.unwrap().is_empty());
    assert!(t.store.job("acc_1", &job.id).await.unwrap().unwrap().result.is_none());
}

async fn old_rows_go(t: &TestStore) {
    t.account("acc_1").await;
    t.store.accept_job(t.keyed_job("acc_1", "k", "body")).await.unwrap();
    t.store.register_process("worker_1", Role::Worker, Duration::from_mins(1)).await.unwrap();
    let claimed = t.claim(1).await.remove(0);
    let job = crate::support::job_of(&claimed).clone();
    t.store.end_job(t.end(JobEndTarget::Lease(claimed.lease.clone()), &job, &completed())).await.unwrap();
    assert_eq!(t.store.sweep().await.unwrap(), 0);
    t.clock.forward(Duration::from_hours(192));
    assert_eq!(t.store.sweep().await.unwrap(), 3, "the key, the ended task, the dead worker");
    assert!(t.store.job("acc_1", &job.id).await.unwrap().is_some(), "the job itself stays");
    assert_eq!(t.claim_from("webhook", "worker_2", 1).await.len(), 1, "an undelivered event stays");
}
