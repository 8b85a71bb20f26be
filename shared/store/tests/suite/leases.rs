//! Claims, steps and lost leases: the row is the task, and an old epoch writes nothing.

use std::time::Duration;

use aig_domain::job::JobStatus;
use aig_store::{Claim, Role, StepKind, Work};

use crate::support::{TestStore, both, completed, job_of};

both!(
    row_is_the_task,
    no_task_is_claimed_twice,
    a_claim_takes_no_more_than_its_limit,
    steps_of_one_task_in_one_batch_are_all_kept,
    a_process_that_ends_keeps_nothing_that_it_claims_at_the_same_time,
    two_schedulers_count_one_crash,
    work_that_is_tried_again_stands_behind_new_work_of_others,
    one_tenants_backlog_does_not_starve_another,
    ten_thousand_tasks_of_one_tenant_do_not_delay_anothers_single_one,
    a_step_right_behind_another_of_the_same_task_comes_second,
    one_submit_per_job,
    a_retry_waits_for_its_time,
    an_old_epoch_writes_nothing,
    expired_workers_lose_their_tasks,
    a_polling_task_that_loses_its_worker_has_not_crashed,
    a_task_that_waits_for_its_turn_has_not_crashed,
    a_lease_is_renewed_only_while_it_lasts,
    released_work_goes_on_where_it_stood,
    a_panic_counts_as_a_crash,
);

async fn row_is_the_task(t: &TestStore) {
    // No broker is near: what is stored can be claimed.
    let job = t.accept("acc_1").await;
    assert_eq!(t.store.due().await.unwrap().iter().map(|due| due.ready).sum::<u64>(), 1);
    let claimed = t.claim(10).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(job_of(&claimed[0]).id, job.id);
    assert!(matches!(&claimed[0].work, Work::Generate { claim: Claim::Fresh(_), .. }));
}

async fn no_task_is_claimed_twice(t: &TestStore) {
    for _ in 0..60 {
        t.accept("acc_1").await;
    }
    let claims = futures_util::future::join_all((0..10).map(|_| t.claim(10))).await;
    let mut ids: Vec<_> = claims.iter().flatten().map(|claimed| claimed.lease.task_id.clone()).collect();
    assert_eq!(ids.len(), 60);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 60);
}

async fn a_claim_takes_no_more_than_its_limit(t: &TestStore) {
    // Statistics of an almost empty table are what once led the planner to run the inner SELECT for each outer row.
    t.accept("acc_1").await;
    t.execute("ANALYZE tasks").await;
    for _ in 0..40 {
        t.accept("acc_1").await;
    }
    for _ in 0..5 {
        assert_eq!(t.claim(2).await.len(), 2);
    }
    assert_eq!(t.store.due().await.unwrap()[0].ready, 31);
}

async fn steps_of_one_task_in_one_batch_are_all_kept(t: &TestStore) {
    for _ in 0..20 {
        let job = t.accept("acc_1").await;
        let claimed = t.claim(1).await.remove(0);
        t.step(&claimed, StepKind::Submitting).await;
        // The caller of the first is gone before it is written; then the task is handed back.
        let (first, second) = tokio::join!(
            t.step(&claimed, StepKind::Submitted("upstream_1".into())),
            t.step(&claimed, StepKind::Release),
        );
        assert!(first && second);
        let again = t.claim(1).await.remove(0);
        assert!(matches!(&again.work, Work::Generate { claim: Claim::Resume(task), .. } if task == "upstream_1"));
        let end = t.end(aig_store::JobEndTarget::Lease(again.lease.clone()), &job, &completed());
        t.store.end_job(end).await.unwrap();
    }
}

async fn a_process_that_ends_keeps_nothing_that_it_claims_at_the_same_time(t: &TestStore) {
    for round in 0..20 {
        let worker = format!("worker_{round}");
        t.store.register_process(&worker, Role::Worker, Duration::from_mins(1)).await.unwrap();
        for _ in 0..10 {
            t.accept("acc_1").await;
        }
        {
            // The shutdown drops the loop that claims.
            let claim = std::pin::pin!(t.claim_from("video", &worker, 10));
            assert!(futures_util::poll!(claim).is_pending());
        }
        t.store.unregister_process(&worker).await.unwrap();
        let others = t.claim_from("video", "other", 64).await;
        assert_eq!(others.len(), 10, "all of them are there for others at once");
        for claimed in others {
            assert_eq!(claimed.crash_count, 0);
            t.step(&claimed, StepKind::Submitting).await;
            let end = t.end(aig_store::JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &completed());
            t.store.end_job(end).await.unwrap();
        }
    }
}

async fn two_schedulers_count_one_crash(t: &TestStore) {
    if t.store.is_embedded() {
        return; // One process, and its lock is the lease.
    }
    t.store.register_process("worker_1", aig_store::Role::Worker, Duration::from_secs(1)).await.unwrap();
    for _ in 0..50 {
        t.accept("acc_1").await;
    }
    for claimed in t.claim(50).await {
        t.step(&claimed, StepKind::Submitting).await;
    }
    t.clock.forward(Duration::from_secs(2));
    let rescues = futures_util::future::join_all((0..4).map(|_| t.store.rescue())).await;
    assert_eq!(rescues.into_iter().map(Result::unwrap).sum::<u64>(), 50);
    t.clock.forward(Duration::from_mins(1));
    t.store.promote_due().await.unwrap();
    let again = t.claim(50).await;
    assert_eq!(again.len(), 50);
    assert!(again.iter().all(|claimed| claimed.crash_count == 1 && claimed.lease.epoch == 3));
}

async fn work_that_is_tried_again_stands_behind_new_work_of_others(t: &TestStore) {
    for _ in 0..30 {
        t.accept("acc_big").await;
    }
    for claimed in t.claim(30).await {
        let at = t.now().plus(Duration::from_secs(1));
        t.step(&claimed, StepKind::Retry { unknown: false, at, error: "busy".into() }).await;
    }
    t.clock.forward(Duration::from_secs(1));
    assert_eq!(t.store.promote_due().await.unwrap(), 30);
    let single = t.accept("acc_small").await;
    let next = t.claim(2).await;
    assert!(next.iter().any(|claimed| job_of(claimed).id == single.id), "it waits for one job at most");
}

async fn one_tenants_backlog_does_not_starve_another(t: &TestStore) {
    for _ in 0..50 {
        t.accept("acc_big").await;
    }
    assert_eq!(t.claim(10).await.len(), 10);
    let single = t.accept("acc_small").await;
    let next = t.claim(2).await;
    assert!(next.iter().any(|claimed| job_of(claimed).id == single.id), "it waits for one job at most");
}

async fn ten_thousand_tasks_of_one_tenant_do_not_delay_anothers_single_one(t: &TestStore) {
    for _ in 0..5 {
        let new = (0..2000).map(|_| t.store.accept_job(t.job("acc_big")));
        assert!(futures_util::future::join_all(new).await.iter().all(Result::is_ok));
    }
    // Whether others of the big tenant were claimed before or not.
    for _ in 0..3 {
        let single = t.accept("acc_small").await;
        let next = t.claim(2).await;
        assert_eq!(next.len(), 2);
        assert!(next.iter().any(|claimed| job_of(claimed).id == single.id), "it is in the very next claim");
        assert_eq!(t.claim(64).await.len(), 64);
    }
}

async fn a_step_right_behind_another_of_the_same_task_comes_second(t: &TestStore) {
    for _ in 0..20 {
        t.accept("acc_1").await;
    }
    let held = t.claim(20).await;
    // In the middle of a step the worker is told to end, drops the step and hands the task back.
    let steps = held.iter().flat_map(|claimed| {
        let step = |kind| aig_store::Step { lease: claimed.lease.clone(), kind, now: t.now() };
        [step(StepKind::Submitted("x".into())), step(StepKind::Release)]
    });
    for held in futures_util::future::join_all(steps.map(|step| t.store.step(step))).await {
        assert!(held.unwrap());
    }
    let again = t.claim(64).await;
    assert_eq!(again.len(), 20, "all came back");
    for claimed in again {
        assert!(matches!(&claimed.work, Work::Generate { claim: Claim::Resume(task), .. } if task == "x"));
    }
}

async fn one_submit_per_job(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    assert!(t.step(&claimed, StepKind::Submitting).await);
    assert_eq!(t.store.job("acc_1", &job.id).await.unwrap().unwrap().status, JobStatus::Processing);
    // The worker dies after it recorded the intent: nobody may simply submit again.
    t.store.free_all_leases().await.unwrap();
    t.clock.forward(Duration::from_mins(1));
    assert_eq!(t.store.promote_due().await.unwrap(), 1);
    let again = t.claim(1).await.remove(0);
    assert!(matches!(&again.work, Work::Generate { claim: Claim::Unknown(_), .. }));
    assert!(t.step(&again, StepKind::Submitting).await);
    assert!(t.step(&again, StepKind::Submitted("upstream_7".into())).await);
    // It dies once more, now that the provider's id is known: from here on it can only be polled.
    t.store.free_all_leases().await.unwrap();
    let third = t.claim(1).await.remove(0);
    assert!(matches!(&third.work, Work::Generate { claim: Claim::Resume(task), .. } if task == "upstream_7"));
}

async fn a_retry_waits_for_its_time(t: &TestStore) {
    t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.step(&claimed, StepKind::Submitting).await;
    let at = t.now().plus(Duration::from_secs(5));
    assert!(t.step(&claimed, StepKind::Retry { unknown: false, at, error: "busy".into() }).await);
    assert_eq!(t.store.promote_due().await.unwrap(), 0);
    assert!(t.claim(1).await.is_empty());
    t.clock.forward(Duration::from_secs(5));
    assert_eq!(t.store.promote_due().await.unwrap(), 1);
    let again = t.claim(1).await.remove(0);
    assert_eq!((again.attempt, again.crash_count), (1, 0));
    assert!(matches!(&again.work, Work::Generate { claim: Claim::Fresh(_), .. }));
}

async fn an_old_epoch_writes_nothing(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let old = t.claim(1).await.remove(0);
    t.store.free_all_leases().await.unwrap();
    let new = t.claim(1).await.remove(0);
    for kind in [StepKind::Submitting, StepKind::Submitted("x".into()), StepKind::Storing(None), StepKind::Release] {
        assert!(!t.step(&old, kind).await);
    }
    assert_eq!(t.store.job("acc_1", &job.id).await.unwrap().unwrap().status, JobStatus::Queued);
    assert!(t.step(&new, StepKind::Submitting).await);
}

async fn expired_workers_lose_their_tasks(t: &TestStore) {
    let lease = Duration::from_mins(1);
    t.store.register_process("worker_1", Role::Worker, lease).await.unwrap();
    t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.step(&claimed, StepKind::Submitting).await;
    t.clock.forward(Duration::from_secs(59));
    assert_eq!(t.store.rescue().await.unwrap(), 0);
    t.clock.forward(Duration::from_secs(2));
    let rescued = t.store.rescue().await.unwrap();
    if t.store.is_embedded() {
        assert_eq!(rescued, 0, "the data folder's lock is the lease");
        return;
    }
    assert_eq!(rescued, 1);
    t.clock.forward(Duration::from_mins(1));
    t.store.promote_due().await.unwrap();
    assert_eq!(t.claim(1).await.remove(0).crash_count, 1);
}

async fn a_polling_task_that_loses_its_worker_has_not_crashed(t: &TestStore) {
    t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.step(&claimed, StepKind::Submitting).await;
    t.step(&claimed, StepKind::Submitted("x".into())).await;
    assert_eq!(t.store.free_all_leases().await.unwrap(), 1);
    assert_eq!(t.claim(1).await.remove(0).crash_count, 0);
}

async fn a_task_that_waits_for_its_turn_has_not_crashed(t: &TestStore) {
    t.accept("acc_1").await;
    let crashed = t.claim(1).await.remove(0);
    t.step(&crashed, StepKind::Submitting).await;
    t.store.free_all_leases().await.unwrap();
    t.clock.forward(Duration::from_mins(1));
    t.store.promote_due().await.unwrap();
    for _ in 0..3 {
        let waits = t.claim(1).await.remove(0);
        assert_eq!(waits.crash_count, 1, "it was claimed and did nothing");
        assert!(matches!(waits.work, Work::Generate { claim: Claim::Unknown(_), .. }));
        assert_eq!(t.store.free_all_leases().await.unwrap(), 1);
    }
    let begun = t.claim(1).await.remove(0);
    t.step(&begun, StepKind::Submitting).await;
    t.store.free_all_leases().await.unwrap();
    t.clock.forward(Duration::from_mins(1));
    t.store.promote_due().await.unwrap();
    assert_eq!(t.claim(1).await.remove(0).crash_count, 2);
}

async fn a_lease_is_renewed_only_while_it_lasts(t: &TestStore) {
    let lease = Duration::from_mins(1);
    t.store.register_process("worker_1", Role::Worker, lease).await.unwrap();
    if t.store.is_embedded() {
        return;
    }
    let mut keeper = aig_store::LeaseConnection::open(&t.config).await.unwrap();
    t.clock.forward(Duration::from_secs(50));
    assert!(keeper.renew("worker_1", t.now(), lease).await.unwrap());
    t.clock.forward(Duration::from_secs(61));
    assert!(!keeper.renew("worker_1", t.now(), lease).await.unwrap());
    keeper.register("worker_2", Role::Worker, t.now(), lease).await.unwrap();
    assert!(keeper.renew("worker_2", t.now(), lease).await.unwrap());
}

async fn released_work_goes_on_where_it_stood(t: &TestStore) {
    t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.step(&claimed, StepKind::Submitting).await;
    t.step(&claimed, StepKind::Submitted("x".into())).await;
    assert!(t.step(&claimed, StepKind::Release).await);
    let again = t.claim(1).await.remove(0);
    assert_eq!((again.crash_count, again.attempt), (0, 0));
    assert!(matches!(&again.work, Work::Generate { claim: Claim::Resume(task), .. } if task == "x"));
}

async fn a_panic_counts_as_a_crash(t: &TestStore) {
    t.accept("acc_1").await;
    for crashes in 0..3 {
        let claimed = t.claim(1).await.remove(0);
        assert_eq!(claimed.crash_count, crashes);
        t.store.crashed(&claimed.lease, claimed.crash_count).await.unwrap();
        t.clock.forward(Duration::from_mins(1));
        t.store.promote_due().await.unwrap();
    }
}
