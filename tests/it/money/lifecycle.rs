//! The life of a cap: it is reached, raised, lowered, taken away, and has room again in a new month.

use std::time::{Duration, Instant};

use aig_domain::clock::SystemClock;
use aig_domain::{Clock as _, Month, Nano};
use aig_testkit::eventually;
use futures_util::future::join;
use reqwest::Method;
use serde_json::json;

use super::{CHAT, Priced, SubAccount, chat, refused, times};
use crate::gateway::{Answer, SOON};
use crate::servers::is_distributed;
use crate::tenants::ask;

/// How soon a change is known everywhere.
const KNOWN: Duration = Duration::from_secs(2);

async fn set_cap(priced: &Priced, sub_account: &SubAccount, cap: Option<Nano>) {
    let path = format!("/v1/sub-accounts/{}", sub_account.id);
    let change = json!({ "spend_cap_cents": cap.map(Nano::cents_json) });
    let patched = ask(&priced.gateway, &priced.gateway.key, Method::PATCH, &path, change.clone()).await;
    assert_eq!((patched.status, &patched.body["spend_cap_cents"]), (200, &change["spend_cap_cents"]));
}

#[tokio::test]
async fn a_cap_is_reached_raised_and_reached_again() {
    let priced = Priced::start().await;
    let body = chat("[fake bound_usage]", false);
    let price = priced.price_of(&body).await;
    let sub_account = priced.sub_account(times(price, 2)).await;
    let call = async |turn: usize| priced.send(turn, &sub_account.key, CHAT, &body).await;
    let spent = async |calls: usize| assert_eq!(priced.books.quiet(&sub_account.id).await.spent, times(price, calls));
    for turn in 0..2 {
        assert_eq!(call(turn).await.status, 200);
    }
    spent(2).await;
    for turn in 2..8 {
        assert_eq!(refused(&call(turn).await, &sub_account), times(price, 2));
    }
    spent(2).await;

    set_cap(&priced, &sub_account, Some(times(price, 3))).await;
    // What stands in the database decides, and no memory of it.
    assert_eq!(call(1).await.status, 200, "the cap was raised");
    spent(3).await;
    refused(&call(2).await, &sub_account);

    // A cap that is too small by a billionth of a dollar is one that does not fit.
    set_cap(&priced, &sub_account, Some(Nano(times(price, 4).0 - 1))).await;
    refused(&call(0).await, &sub_account);
    set_cap(&priced, &sub_account, Some(Nano(price.0 / 2))).await;
    refused(&call(1).await, &sub_account);
    spent(3).await;

    set_cap(&priced, &sub_account, None).await;
    for turn in 0..3 {
        assert_eq!(call(turn).await.status, 200, "there is no cap");
    }
    // All processes know now that there is none; a new one reaches them.
    set_cap(&priced, &sub_account, Some(price)).await;
    let begun = Instant::now();
    for turn in 0..3 {
        let known = eventually("a new cap is known", SOON, || async { (call(turn).await.status == 402).then_some(()) });
        known.await.unwrap();
        assert!(begun.elapsed() < KNOWN + Duration::from_millis(500), "{:?}", begun.elapsed());
    }
    priced.books.healthy().await;
}

/// How long before the end of the month the clock of the gateway is set.
const BEFORE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_month_has_room_again() {
    if is_distributed() {
        return; // The database's clock decides there.
    }
    let mut priced = Priced::start().await;
    let body = chat("[fake bound_usage]", false);
    let late = chat("[fake hold bound_usage]", false);
    let (price, of_late) = (priced.price_of(&body).await, priced.price_of(&late).await);
    let cap = times(price, 2).plus(of_late);
    let sub_account = priced.sub_account(cap).await;
    let month = Month::of(SystemClock.now());
    let to_the_end = SystemClock.now().until(month.ends()).saturating_sub(BEFORE);
    if !priced.gateway.skew(0, &format!("+{}", to_the_end.as_secs())) {
        return;
    }
    priced.gateway.restart(0).await;

    let crossing = priced.request(0, &sub_account.key, CHAT, &late).send();
    let arrived = priced.chat.stats().requests;
    let month_ends = async {
        eventually("one is under way", SOON, || async { (priced.chat.stats().requests > arrived).then_some(()) })
            .await
            .unwrap();
        for turn in 0..2 {
            assert_eq!(priced.send(turn, &sub_account.key, CHAT, &body).await.status, 200);
        }
        let full = priced.send(0, &sub_account.key, CHAT, &body).await;
        assert_eq!(refused(&full, &sub_account), cap);
        assert_eq!(full.body["error"]["budget"]["resets_at"], month.ends().unix_seconds());
        let passed = eventually("a new month", SOON, || async {
            let answer = priced.send(0, &sub_account.key, CHAT, &body).await;
            (answer.status == 200).then_some(answer)
        });
        let date = passed.await.unwrap().header("date").to_owned();
        assert!(date.contains(", 01 "), "it is the first of the month: {date}");
        priced.chat.release();
    };
    let (crossing, ()) = join(crossing, month_ends).await;
    assert_eq!(Answer::of(crossing.unwrap()).await.status, 200);

    // The cap of the new month is the same, and what came in the old one is charged there.
    let mut fitted = 1;
    let full = loop {
        let answer = priced.send(0, &sub_account.key, CHAT, &body).await;
        if answer.status != 200 {
            break answer;
        }
        fitted += 1;
    };
    refused(&full, &sub_account);
    assert_eq!(full.body["error"]["budget"]["resets_at"], month.next().ends().unix_seconds());
    priced.books.quiet(&sub_account.id).await;
    let sql = format!(
        "SELECT CAST(period AS TEXT) || ' ' || CAST(spent AS TEXT) FROM budget_periods WHERE scope = '{}' ORDER BY period",
        sub_account.id
    );
    let new = times(price, fitted);
    assert!(new.0 <= cap.0 && new.plus(price).0 > cap.0);
    let expected = [format!("{} {}", month.number(), cap.0), format!("{} {}", month.next().number(), new.0)];
    assert_eq!(priced.books.rows(&sql).await, expected);
    priced.books.healthy().await;
}
