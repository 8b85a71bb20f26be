//! Accepting: what is answered is committed, and an idempotency key means one job.

use std::time::Duration;

use aig_domain::job::JobStatus;
use aig_store::{Accepted, JobsOf};
use futures_util::future::join_all;

use crate::support::{TestStore, both};

both!(
    accepted_is_committed,
    many_at_once_are_all_there,
    one_key_is_one_job,
    the_same_key_in_one_batch_is_one_job,
    a_key_is_free_again_when_its_time_is_over,
    bad_text_spoils_only_its_own_job,
    lists_go_newest_first_page_by_page,
    tenant_sees_own,
);

async fn accepted_is_committed(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let read = t.store.job("acc_1", &job.id).await.unwrap().unwrap();
    assert_eq!(format!("{read:?}"), format!("{job:?}"));
}

async fn many_at_once_are_all_there(t: &TestStore) {
    let new: Vec<_> = (0..300).map(|_| t.job("acc_1")).collect();
    let ids: Vec<_> = new.iter().map(|new| new.job.id.clone()).collect();
    for accepted in join_all(new.into_iter().map(|new| t.store.accept_job(new))).await {
        assert!(matches!(accepted.unwrap(), Accepted::New(_)));
    }
    for id in ids {
        assert!(t.store.job("acc_1", &id).await.unwrap().is_some());
    }
}

async fn one_key_is_one_job(t: &TestStore) {
    let first = t.keyed_job("acc_1", "k", "body");
    t.store.accept_job(first.clone()).await.unwrap();
    let again = t.store.accept_job(t.keyed_job("acc_1", "k", "body")).await.unwrap();
    assert!(matches!(&again, Accepted::Replayed(job) if job.id == first.job.id), "{again:?}");
    let other_body = t.store.accept_job(t.keyed_job("acc_1", "k", "other")).await.unwrap();
    assert!(matches!(other_body, Accepted::Mismatch));
    let other_account = t.store.accept_job(t.keyed_job("acc_2", "k", "other")).await.unwrap();
    assert!(matches!(other_account, Accepted::New(_)));
    assert_eq!(t.claim(64).await.len(), 2, "refused and replayed requests leave no task");
}

async fn the_same_key_in_one_batch_is_one_job(t: &TestStore) {
    let new: Vec<_> = (0..200).map(|i| t.keyed_job("acc_1", &format!("k{}", i % 5), "body")).collect();
    let accepted = join_all(new.into_iter().map(|new| t.store.accept_job(new))).await;
    let count = accepted.iter().filter(|a| matches!(a, Ok(Accepted::New(_)))).count();
    assert_eq!(count, 5);
    assert!(accepted.iter().all(|a| matches!(a, Ok(Accepted::New(_) | Accepted::Replayed(_)))));
    assert_eq!(t.claim(64).await.len(), 5);
}

async fn a_key_is_free_again_when_its_time_is_over(t: &TestStore) {
    t.store.accept_job(t.keyed_job("acc_1", "k", "body")).await.unwrap();
    t.clock.forward(Duration::from_secs(3601));
    let later = t.store.accept_job(t.keyed_job("acc_1", "k", "other")).await.unwrap();
    assert!(matches!(later, Accepted::New(_)));
}

async fn bad_text_spoils_only_its_own_job(t: &TestStore) {
    // The same primary key twice: the database refuses the batch, and each item is then tried alone.
    let twin = t.accept("acc_1").await;
    let mut all: Vec<_> = (0..60).map(|_| t.job("acc_1")).collect();
    all[30].job.id = twin.id;
    // One poll of all of them puts them in line together, so that the bad one has neighbours.
    let accepted = join_all(all.into_iter().map(|new| t.store.accept_job(new))).await;
    let refused: Vec<usize> = (0..60).filter(|index| accepted[*index].is_err()).collect();
    assert_eq!(refused, [30], "{accepted:?}");
}

async fn lists_go_newest_first_page_by_page(t: &TestStore) {
    let mut ids = Vec::new();
    for i in 0..7 {
        // Two of each have the same time.
        if i % 2 == 0 {
            t.clock.forward(Duration::from_millis(1));
        }
        ids.push(t.accept("acc_1").await.id);
    }
    t.accept("acc_2").await;
    let mut seen: Vec<String> = Vec::new();
    loop {
        let after = seen.last().cloned();
        let page = t.store.list_jobs(JobsOf::Account("acc_1"), None, after.as_deref(), 3).await.unwrap().unwrap();
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        if !page.has_more {
            break;
        }
    }
    let mut sorted = seen.clone();
    sorted.sort();
    ids.sort();
    assert_eq!(sorted, ids);
    assert_eq!(seen.first(), ids.last());
    let queued =
        t.store.list_jobs(JobsOf::Account("acc_1"), Some(JobStatus::Queued), None, 100).await.unwrap().unwrap();
    assert_eq!(queued.jobs.len(), 7);
    let failed =
        t.store.list_jobs(JobsOf::Account("acc_1"), Some(JobStatus::Failed), None, 100).await.unwrap().unwrap();
    assert!(failed.jobs.is_empty());
}

async fn tenant_sees_own(t: &TestStore) {
    let job = t.accept("acc_1").await;
    assert!(t.store.job("acc_2", &job.id).await.unwrap().is_none());
    assert!(t.store.list_jobs(JobsOf::Account("acc_2"), None, Some(&job.id), 10).await.unwrap().is_none());
    assert!(t.store.list_jobs(JobsOf::Account("acc_2"), None, None, 10).await.unwrap().unwrap().jobs.is_empty());
}
