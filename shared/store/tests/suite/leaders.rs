//! Leadership: one at a time, handed over at once or after the lease.

use std::time::Duration;

use aig_store::Leadership::{Following, Leading};
use futures_util::future::join_all;

use crate::support::{TestStore, both};

both!(
    one_of_many_leads,
    the_lease_goes_on_while_it_is_renewed_and_to_another_after_that,
    who_resigns_is_followed_at_once
);

const LEASE: Duration = Duration::from_secs(10);

async fn one_of_many_leads(t: &TestStore) {
    let holders: Vec<String> = (0..8).map(|i| format!("scheduler_{i}")).collect();
    let asked = join_all(holders.iter().map(|holder| t.store.lead("scheduler", holder, LEASE))).await;
    let leading = asked.iter().filter(|answer| matches!(answer.as_ref().unwrap(), Leading(_))).count();
    assert_eq!(leading, 1, "{asked:?}");
    assert!(matches!(t.store.lead("other", "scheduler_9", LEASE).await.unwrap(), Leading(1)), "another name is free");
}

async fn the_lease_goes_on_while_it_is_renewed_and_to_another_after_that(t: &TestStore) {
    let until = t.now().plus(LEASE);
    assert_eq!(t.store.lead("s", "a", LEASE).await.unwrap(), Leading(1));
    assert_eq!(t.store.lead("s", "b", LEASE).await.unwrap(), Following(until));
    t.clock.forward(Duration::from_secs(9));
    assert_eq!(t.store.lead("s", "a", LEASE).await.unwrap(), Leading(1), "the same epoch");
    t.clock.forward(Duration::from_secs(9));
    assert!(matches!(t.store.lead("s", "b", LEASE).await.unwrap(), Following(_)));
    t.clock.forward(Duration::from_secs(2));
    assert_eq!(t.store.lead("s", "b", LEASE).await.unwrap(), Leading(2));
    assert!(matches!(t.store.lead("s", "a", LEASE).await.unwrap(), Following(_)), "it comes too late");
}

async fn who_resigns_is_followed_at_once(t: &TestStore) {
    t.store.lead("s", "a", LEASE).await.unwrap();
    t.store.resign("s", "b").await.unwrap();
    assert!(matches!(t.store.lead("s", "b", LEASE).await.unwrap(), Following(_)), "only the leader can");
    t.store.resign("s", "a").await.unwrap();
    assert_eq!(t.store.lead("s", "b", LEASE).await.unwrap(), Leading(2));
}
