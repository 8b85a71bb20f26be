//! `cap_holds`: a thousand calls at once on a cap of so many times their price. Exactly so many reach the provider, all of them
//! before the first of them has ended; the others are refused and leave no trace.

use std::time::Duration;

use aig_domain::Nano;
use aig_testkit::eventually;
use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use super::{A_VIDEO, CHAT, Priced, VIDEO, cents, chat, refused, times, video};
use crate::gateway::Answer;
use crate::servers::is_distributed;

const CALLS: usize = 1000;
const FITTING: [usize; 5] = [0, 1, 50, 999, 1000];
const LONG: Duration = Duration::from_mins(2);

/// Sends `body` a thousand times at once, spread over all processes.
async fn at_once(priced: &Priced, key: &str, path: &str, body: &Value) -> Vec<Answer> {
    stream::iter(0..CALLS).map(|turn| priced.send(turn, key, path, body)).buffer_unordered(CALLS).collect().await
}

/// The fake's count of requests.
fn arrived(priced: &Priced) -> usize {
    usize::try_from(priced.chat.stats().requests).unwrap()
}

async fn chats(priced: &Priced, stream: bool, fitting: &[usize]) {
    let body = chat("[fake hold bound_usage words=3]", stream);
    let price = priced.price_of(&body).await;
    for fit in fitting {
        let sub_account = priced.sub_account(times(price, *fit)).await;
        let before = arrived(priced);
        priced.chat.hold();
        let all_in_flight = async {
            let all = eventually("all that fit are with the provider", LONG, || async {
                (arrived(priced) >= before + fit).then_some(())
            });
            all.await.unwrap();
            assert_eq!(priced.books.sums(&sub_account.id).await.held, times(price, *fit), "none of them has ended");
            priced.chat.release();
        };
        let (answers, ()) = tokio::join!(at_once(priced, &sub_account.key, CHAT, &body), all_in_flight);
        assert_eq!(arrived(priced), before + fit, "exactly those that fit reach the provider");
        let (passed, others): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|it| it.status == 200);
        assert_eq!(passed.len(), *fit);
        for answer in &passed {
            assert!(answer.text.contains("word") && (!stream || answer.text.contains("[DONE]")), "{}", answer.text);
        }
        holds(priced, &sub_account, price, *fit, &others).await;
    }
    priced.books.healthy().await;
}

/// What must be true when the others were refused.
async fn holds(priced: &Priced, sub_account: &super::SubAccount, price: Nano, fit: usize, others: &[Answer]) {
    let (cap, books, id) = (times(price, fit), &priced.books, &sub_account.id);
    assert_eq!(others.len(), CALLS - fit);
    for answer in others {
        assert_eq!(refused(answer, sub_account), cap, "it was refused since the cap was reached, and no sooner");
        let budget = &answer.body["error"]["budget"];
        assert_eq!((cents(&budget["cap_cents"]), cents(&budget["requested_cents"])), (cap, price));
    }
    let of_it = format!("sub_account_id = '{id}'");
    eventually("every call is on record", LONG, || async {
        (books.count("requests", &of_it).await == fit).then_some(())
    })
    .await
    .unwrap();
    let expected = super::books::Sums { spent: cap, held: Nano::ZERO, uncertain: Nano::ZERO };
    assert_eq!(books.sums(id).await, expected, "cap {fit} × {price:?}");
    for (table, when) in [("ledger", "kind = 'charge'"), ("reservations", "state = 'settled'"), ("requests", "TRUE")] {
        assert_eq!(books.count(table, &of_it).await, fit, "nothing of the refused is in {table}");
        assert_eq!(books.count(table, &format!("{of_it} AND {when}")).await, fit, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cap_holds_for_chat() {
    let priced = Priced::start().await;
    chats(&priced, false, &FITTING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cap_holds_for_streaming_chat() {
    let priced = Priced::start().await;
    chats(&priced, true, &FITTING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cap_holds_without_redis() {
    if !is_distributed() {
        return;
    }
    // Nothing listens on that port.
    let priced = Priced::start_with(&[("AIG_CACHE_URL", "redis://127.0.0.1:1")]).await;
    let ready = priced.gateway.get("/readyz").await;
    assert_eq!(ready.body["cache"], "degraded", "{}", ready.body);
    chats(&priced, false, &[50, 1000]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cap_holds_for_jobs() {
    let priced = Priced::start().await;
    let made = || usize::try_from(priced.media.stats().submits).unwrap();
    for fit in FITTING {
        let sub_account = priced.sub_account(times(A_VIDEO, fit)).await;
        let before = made();
        let answers = at_once(&priced, &sub_account.key, VIDEO, &video("x")).await;
        let (passed, others): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|it| it.status == 202);
        assert_eq!(passed.len(), fit);
        holds(&priced, &sub_account, A_VIDEO, fit, &others).await;
        assert_eq!(made(), before + fit, "exactly those that fit reach the provider");
        assert_eq!(priced.books.count("jobs", &format!("account_id = '{}'", sub_account.id)).await, fit);
    }
    priced.books.healthy().await;
}
