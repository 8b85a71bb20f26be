//! Deliveries: one event, one id, until it is taken or given up.

use std::time::Duration;

use aig_store::{Attempt, Claimed, Delivery, DeliveryEnd, JobEndTarget, Work};

use crate::support::{TestStore, both, completed, job_of};

both!(webhook_until_2xx_same_id, a_lost_lease_records_nothing);

async fn event_of_a_job(t: &TestStore) -> String {
    let job = t.accept("acc_1").await;
    let claimed = t.claim(1).await.remove(0);
    t.store.end_job(t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &completed())).await.unwrap();
    job.id
}

fn delivery(t: &TestStore, claimed: &Claimed, status: u16, end: DeliveryEnd) -> Delivery {
    let Work::Webhook { event, .. } = &claimed.work else { panic!("{claimed:?}") };
    let attempt =
        Attempt { number: claimed.attempt + 1, at: t.now(), duration_ms: 1, status: Some(status), error: None };
    Delivery { lease: claimed.lease.clone(), event_id: event.id.clone(), attempt, end }
}

async fn webhook_until_2xx_same_id(t: &TestStore) {
    let job = event_of_a_job(t).await;
    let mut ids = Vec::new();
    for attempt in 0..3 {
        let claimed = t.claim_from("webhook", "worker_1", 10).await.remove(0);
        assert_eq!(claimed.attempt, attempt);
        let Work::Webhook { event, .. } = &claimed.work else { panic!("{claimed:?}") };
        ids.push((event.id.clone(), event.body.clone()));
        let at = t.now().plus(Duration::from_secs(5));
        assert!(t.store.record_delivery(delivery(t, &claimed, 500, DeliveryEnd::Retry(at))).await.unwrap());
        assert!(t.claim_from("webhook", "worker_1", 10).await.is_empty(), "not before its time");
        t.clock.forward(Duration::from_secs(5));
        t.store.promote_due().await.unwrap();
    }
    let claimed = t.claim_from("webhook", "worker_1", 10).await.remove(0);
    assert!(t.store.record_delivery(delivery(t, &claimed, 200, DeliveryEnd::Delivered)).await.unwrap());
    ids.dedup();
    assert_eq!(ids.len(), 1, "every attempt has the same id and the same bytes");
    let history = t.store.webhook_history(&job).await.unwrap().unwrap();
    assert_eq!(history.state, "delivered");
    assert_eq!(history.statuses, [Some(500), Some(500), Some(500), Some(200)]);
    t.clock.forward(Duration::from_hours(1));
    t.store.promote_due().await.unwrap();
    assert!(t.claim_from("webhook", "worker_1", 10).await.is_empty());
}

async fn a_lost_lease_records_nothing(t: &TestStore) {
    let job = event_of_a_job(t).await;
    let old = t.claim_from("webhook", "worker_1", 1).await.remove(0);
    t.store.free_all_leases().await.unwrap();
    assert!(!t.store.record_delivery(delivery(t, &old, 200, DeliveryEnd::Delivered)).await.unwrap());
    let history = t.store.webhook_history(&job).await.unwrap().unwrap();
    assert_eq!((history.state.as_str(), history.statuses.len()), ("pending", 0));
    assert_eq!(t.claim_from("webhook", "worker_1", 1).await.len(), 1);
}
