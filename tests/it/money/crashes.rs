//! A process that dies in the middle of paid calls: they are in doubt, which counts against the cap and is charged to nobody.

use std::time::Duration;

use aig_domain::Nano;
use aig_testkit::eventually;
use futures_util::future::{join, join_all};

use super::books::Sums;
use super::{CHAT, Priced, chat, refused, times};
use crate::gateway::Answer;
use crate::servers::is_distributed;

const LONG: Duration = Duration::from_mins(1);

/// Sends what may never be answered: the status, if there was one and the body came to its end.
async fn send(request: reqwest::RequestBuilder) -> Option<u16> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    response.bytes().await.ok().map(|_| status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_process_that_was_killed_are_in_doubt() {
    let mut priced = Priced::start().await;
    let (plain, stream) = (chat("[fake hold bound_usage]", false), chat("[fake hold bound_usage]", true));
    let halfway = chat("[fake words=9 stall_after=3]", true);
    let mut bounds = Vec::new();
    for body in [&plain, &stream, &halfway] {
        bounds.push(priced.bound_of(body).await);
    }
    // Two of each on the process that dies, two more on each of the others.
    let doubtful = Nano(bounds.iter().map(|bound| 2 * bound.0).sum());
    let others = if is_distributed() { 4 } else { 0 };
    let (spent, more) = (times(bounds[0], others), bounds[0]);
    let cap = doubtful.plus(spent).plus(more);
    let sub_account = priced.sub_account(cap).await;
    let mut calls = Vec::new();
    for body in [&plain, &stream, &halfway] {
        calls.extend((0..2).map(|_| send(priced.request(0, &sub_account.key, CHAT, body))));
    }
    calls.extend((0..others).map(|turn| send(priced.request(1 + turn % 2, &sub_account.key, CHAT, &plain))));

    let in_flight = 6 + u64::try_from(others).unwrap();
    let crash = async {
        eventually("all calls are with the provider", LONG, || async {
            (priced.chat.stats().requests == in_flight).then_some(())
        })
        .await
        .unwrap();
        let held = Sums { spent: Nano::ZERO, held: doubtful.plus(spent), uncertain: Nano::ZERO };
        assert_eq!(priced.books.sums(&sub_account.id).await, held);
        priced.gateway.kill_one(0);
        priced.chat.release();
        if !is_distributed() {
            priced.gateway.spawn().await;
        }
    };
    let (answers, ()) = join(join_all(calls), crash).await;
    assert!(answers[..6].iter().all(Option::is_none), "{answers:?}");
    assert!(answers[6..].iter().all(|status| *status == Some(200)), "{answers:?}");

    // Where others live, they sweep up after the dead one; where none does, it does so itself.
    let expected = Sums { spent, held: Nano::ZERO, uncertain: doubtful };
    eventually("nothing is held", LONG, || async {
        (priced.books.sums(&sub_account.id).await == expected).then_some(())
    })
    .await
    .unwrap();
    let of_it = format!("sub_account_id = '{}'", sub_account.id);
    assert_eq!(priced.books.count("reservations", &format!("{of_it} AND state = 'uncertain'")).await, 6);
    assert_eq!(priced.books.count("ledger", &of_it).await, others, "nobody pays for what is in doubt");
    priced.gateway.spawn().await;
    assert_eq!(priced.send(0, &sub_account.key, CHAT, &plain).await.status, 200, "one more fits");
    let full = priced.send(1, &sub_account.key, CHAT, &plain).await;
    assert_eq!(refused(&full, &sub_account), cap, "what is in doubt counts");
    assert!(full.text.contains("in doubt"), "{}", full.text);
    assert_eq!(priced.books.quiet(&sub_account.id).await, Sums { spent: spent.plus(more), ..expected });
    priced.books.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_was_never_written_is_not_charged() {
    let mut priced = Priced::start().await;
    let body = chat("[fake hold bound_usage]", false);
    let price = priced.bound_of(&body).await;
    let sub_account = priced.sub_account(times(price, 4)).await;
    let calls: Vec<_> = (0..3).map(|turn| priced.request(turn, &sub_account.key, CHAT, &body).send()).collect();
    let crash = async {
        eventually("all calls are with the provider", LONG, || async {
            (priced.chat.stats().requests == 3).then_some(())
        })
        .await
        .unwrap();
        let lock = priced.books.lock().await;
        priced.chat.release();
        lock
    };
    let (answers, lock) = join(join_all(calls), crash).await;
    for answer in answers {
        let answer = Answer::of(answer.unwrap()).await;
        assert_eq!(answer.status, 200, "a client does not wait for the books: {}", answer.text);
    }
    priced.gateway.kill();
    lock.release().await;
    priced.gateway.spawn().await;
    let expected = Sums { spent: Nano::ZERO, held: Nano::ZERO, uncertain: times(price, 3) };
    assert_eq!(priced.books.quiet(&sub_account.id).await, expected);
    assert_eq!(priced.books.count("ledger", &format!("sub_account_id = '{}'", sub_account.id)).await, 0);
    assert_eq!(priced.send(0, &sub_account.key, CHAT, &body).await.status, 200, "one fits beside what is in doubt");
    refused(&priced.send(1, &sub_account.key, CHAT, &body).await, &sub_account);
    priced.books.healthy().await;
}
