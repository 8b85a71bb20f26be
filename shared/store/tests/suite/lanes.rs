//! The combiner under load and at its end.

use aig_store::StoreError;
use futures_util::future::join_all;

use crate::support::{TestStore, both};

both!(a_closed_store_finishes_what_was_in_line, a_caller_that_goes_away_does_not_cancel_its_item);

async fn a_closed_store_finishes_what_was_in_line(t: &TestStore) {
    let new: Vec<_> = (0..500).map(|_| t.job("acc_1")).collect();
    let ids: Vec<_> = new.iter().map(|new| new.job.id.clone()).collect();
    let mut accepts = std::pin::pin!(join_all(new.into_iter().map(|new| t.store.accept_job(new))));
    // One poll puts all of them in line.
    assert!(futures_util::poll!(accepts.as_mut()).is_pending());
    let (accepted, ()) = tokio::join!(accepts, t.store.close());
    assert!(accepted.iter().all(Result::is_ok), "{accepted:?}");
    let late = t.store.accept_job(t.job("acc_1")).await;
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    let reopened = t.reopen().await;
    for id in &ids {
        assert!(reopened.job("acc_1", id).await.unwrap().is_some());
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
