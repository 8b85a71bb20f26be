//! The combiner under load and at its end.

use aig_store::StoreError;
use futures_util::future::join_all;

use crate::support::{TestStore, both};

both!(a_closed_store_finishes_what_was_in_line, a_caller_that_goes_away_does_not_cancel_its_item);

async fn a_closed_store_finishes_what_was_in_line(t: &TestStore) {
    let new: Vec<_> = (0..500).map(|_| t.job("acc_1")).collect();
    let ids: Vec<_> = new.iter().map(|new| new.job.id.clone()).collect();
    let accepts = join_all(new.into_iter().map(|new| t.store.accept_job(new)));
    let (accepted, ()) = tokio::join!(accepts, async {
        tokio::task::yield_now().await;
        t.store.close().await;
    });
    // Each was either stored or told that it was not. Which, depends on when the lane closed; all were in line here.
    assert!(accepted.iter().all(|accepted| matches!(accepted, Ok(_) | Err(StoreError::Closed))), "{accepted:?}");
    let reopened = t.reopen().await;
    for (id, accepted) in ids.iter().zip(&accepted) {
        assert_eq!(reopened.job("acc_1", id).await.unwrap().is_some(), accepted.is_ok());
    }
    reopened.close().await;
}

async fn a_caller_that_goes_away_does_not_cancel_its_item(t: &TestStore) {
    let new = t.job("acc_1");
    let id = new.job.id.clone();
    {
        let accept = std::pin::pin!(t.store.accept_job(new));
        // One poll puts the item in line; then the caller is gone.
        assert!(futures_util::poll!(accept).is_pending());
    }
    // The lane is first come, first served: when this one is stored, the earlier one is too.
    t.accept("acc_1").await;
    assert!(t.store.job("acc_1", &id).await.unwrap().is_some());
}
