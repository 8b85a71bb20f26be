//! Rows of processes: who is alive, and what becomes of the tasks of one that ends, or of a claim that nobody heard of.

use std::time::Duration;

use aig_store::{Claim, ClaimRequest, Role, StepKind, Work};
use sqlx::{Connection as _, PgConnection};

use crate::support::{TestStore, both, postgres};

both!(
    live_processes_are_counted_by_role,
    registering_twice_is_harmless,
    a_process_that_ends_hands_back_what_it_holds,
    the_end_comes_after_the_claims_in_line,
    a_claim_that_nobody_heard_of_is_released,
);

const LEASE: Duration = Duration::from_mins(1);

async fn live_processes_are_counted_by_role(t: &TestStore) {
    assert_eq!(t.store.live_processes(Role::Api).await.unwrap(), 0);
    t.store.register_process("worker_1", Role::Worker, LEASE).await.unwrap();
    t.store.register_process("api_1", Role::Api, LEASE).await.unwrap();
    t.store.register_process("api_2", Role::Api, LEASE).await.unwrap();
    // The lock of the data folder proves that the one before is dead.
    let both = if t.store.is_embedded() { 1 } else { 2 };
    assert_eq!(t.store.live_processes(Role::Api).await.unwrap(), both);
    assert_eq!(t.store.live_processes(Role::Worker).await.unwrap(), 1);
    t.store.unregister_process("api_2").await.unwrap();
    assert_eq!(t.store.live_processes(Role::Api).await.unwrap(), both - 1);
    t.clock.forward(LEASE + Duration::from_secs(1));
    assert_eq!(t.store.live_processes(Role::Api).await.unwrap(), 0);
}

async fn registering_twice_is_harmless(t: &TestStore) {
    for _ in 0..2 {
        t.store.register_process("api_1", Role::Api, LEASE).await.unwrap();
    }
    assert_eq!(t.store.live_processes(Role::Api).await.unwrap(), 1);
}

async fn a_process_that_ends_hands_back_what_it_holds(t: &TestStore) {
    t.store.register_process("worker_1", Role::Worker, LEASE).await.unwrap();
    for _ in 0..3 {
        t.accept("acc_1").await;
    }
    let mut held = t.claim(2).await;
    let (polling, submitting) = (held.remove(0), held.remove(0));
    let other = t.claim_from("video", "worker_2", 1).await.remove(0);
    t.step(&polling, StepKind::Submitting).await;
    t.step(&polling, StepKind::Submitted("x".into())).await;
    t.step(&submitting, StepKind::Submitting).await;
    assert_eq!(t.store.unregister_process("worker_1").await.unwrap(), 2);
    assert!(!t.step(&polling, StepKind::Storing(None)).await, "what is still running there writes nothing any more");
    assert!(t.step(&other, StepKind::Submitting).await, "another's tasks stay");
    // At once, without a rescue, and not as a crash.
    let again = t.claim_from("video", "worker_2", 10).await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|claimed| claimed.crash_count == 0));
    let resumed = |claim: &Claim| matches!(claim, Claim::Resume(task) if task == "x");
    let unknown = |claim: &Claim| matches!(claim, Claim::Unknown(_));
    let claims: Vec<&Claim> = again
        .iter()
        .map(|claimed| match &claimed.work {
            Work::Generate { claim, .. } => claim,
            Work::Webhook { event, .. } => panic!("{event:?}"),
        })
        .collect();
    assert!(claims.iter().any(|claim| resumed(claim)) && claims.iter().any(|claim| unknown(claim)), "{claims:?}");
}

async fn the_end_comes_after_the_claims_in_line(t: &TestStore) {
    t.accept("acc_1").await;
    {
        let request = ClaimRequest { claim_id: "c".into(), worker: "worker_1".into(), queue: "video", limit: 1 };
        let claim = std::pin::pin!(t.store.claim(request));
        // One poll puts the claim in line; then its caller is gone, as at a shutdown.
        assert!(futures_util::poll!(claim).is_pending());
    }
    assert_eq!(t.store.unregister_process("worker_1").await.unwrap(), 1);
    assert_eq!(t.claim_from("video", "worker_2", 1).await.len(), 1);
}

async fn a_claim_that_nobody_heard_of_is_released(t: &TestStore) {
    for _ in 0..3 {
        t.accept("acc_1").await;
    }
    let heard = t.claim(1).await.remove(0);
    let request = ClaimRequest { claim_id: "c".into(), worker: "worker_1".into(), queue: "video", limit: 1 };
    t.store.claim(request).await.unwrap();
    assert_eq!(t.store.release_claim("worker_2", "c").await.unwrap(), 0, "only its own worker's");
    assert_eq!(t.store.release_claim("worker_1", "c").await.unwrap(), 1);
    assert_eq!(t.store.release_claim("worker_1", "c").await.unwrap(), 0);
    assert!(t.step(&heard, StepKind::Submitting).await, "other claims of the same worker stay");
    let again = t.claim(10).await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|claimed| claimed.crash_count == 0));
}

mod rescues {
    //! Two schedulers rescue at the same time.

    use super::*;

    postgres!(a_task_is_rescued_once_and_not_taken_from_its_next_holder);

    async fn a_task_is_rescued_once_and_not_taken_from_its_next_holder(t: &TestStore) {
        t.store.register_process("worker_1", Role::Worker, LEASE).await.unwrap();
        t.store.register_process("worker_2", Role::Worker, LEASE * 10).await.unwrap();
        t.accept("acc_1").await;
        let lost = t.claim(1).await.remove(0);
        t.step(&lost, StepKind::Submitting).await;
        t.clock.forward(LEASE + Duration::from_secs(1));
        // The first rescue, and the next claim right behind it, have not committed yet.
        let mut first = PgConnection::connect(t.config.url.expose()).await.unwrap();
        let mut tx = first.begin().await.unwrap();
        sqlx::query("UPDATE tasks SET worker = 'worker_2', crash_count = 1, lease_epoch = lease_epoch + 2")
            .execute(&mut *tx)
            .await
            .unwrap();
        let (rescued, ()) = tokio::join!(t.store.rescue(), async {
            crate::faults::somebody_waits(t).await;
            tx.commit().await.unwrap();
        });
        assert_eq!(rescued.unwrap(), 0);
        let holder: (String, i64) =
            sqlx::query_as("SELECT worker, crash_count FROM tasks").fetch_one(&mut first).await.unwrap();
        assert_eq!(holder, ("worker_2".into(), 1));
    }
}
