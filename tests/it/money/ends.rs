//! However a call ends, it is on record and charged once: what the provider counted, else our own count of what came, and nothing
//! where nothing was done. With a cap above it and without one.

use aig_domain::Nano;
use aig_testkit::eventually;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::books::{Row, Sums};
use super::{CHAT, Priced, READ, SubAccount, WRITTEN, chat};
use crate::gateway::{Answer, SOON};

/// What the fake's words are, one after the other.
const WORD: &str = "word ";

/// A quarter of the bytes, rounded up.
fn estimate(bytes: usize) -> i64 {
    i64::try_from(bytes.div_ceil(4)).unwrap()
}

/// What a call costs that read and wrote so many tokens.
pub fn cost(read: i64, written: i64) -> Nano {
    Nano(read * READ + written * WRITTEN)
}

/// What nobody counted costs: `ceil(bytes / 4)` of the conversation and of the words that came. `more` is how many bytes beside
/// the words a gateway may take for written.
fn estimated(body: &Value, words: usize, more: usize) -> std::ops::RangeInclusive<Nano> {
    let (read, words) = (estimate(body["messages"].to_string().len()), words * WORD.len());
    cost(read, estimate(words))..=cost(read, estimate(words + more))
}

fn row(outcome: &str, status: u16, estimated: bool, cost: Nano) -> Row {
    Row { outcome: outcome.into(), status, estimated, cost }
}

/// Two that pay: one with a cap, of whose calls the cost is reserved, and one without.
async fn payers(priced: &Priced) -> [SubAccount; 2] {
    [priced.sub_account(Nano(1000 * Nano::CENT.0)).await, priced.sub_account(None).await]
}

/// Sends `body`; gives the id of the request.
async fn send(priced: &Priced, payer: &SubAccount, body: &Value) -> (Answer, String) {
    let answer = priced.send(0, &payer.key, CHAT, body).await;
    let id = answer.header("x-request-id").to_owned();
    (answer, id)
}

/// The request is on record as `expected`, and charged once what it cost, if it cost something.
async fn is_charged(priced: &Priced, id: &str, expected: &Row, what: &str) {
    assert_eq!(priced.books.request(id).await, *expected, "{what}");
    // What was used for nothing has a charge of nothing, and what was not done has none.
    let charges: Vec<Nano> = priced.books.charges(id).await.into_iter().filter(|it| *it > Nano::ZERO).collect();
    let once = if expected.cost > Nano::ZERO { vec![expected.cost] } else { Vec::new() };
    assert_eq!(charges, once, "{what}");
}

/// What the last call that the provider saw could have cost.
fn bound_of_last(priced: &Priced) -> Nano {
    let bytes = i64::try_from(priced.chat.last().unwrap().1.to_string().len()).unwrap();
    Nano((bytes + 1) * READ + 10 * WRITTEN)
}

/// What stays in doubt of the last call, for which `cost` was charged: all that was reserved beside that, below a cap.
fn doubt(priced: &Priced, payer: &SubAccount, capped: &SubAccount, cost: Nano) -> Nano {
    if payer.id == capped.id { Nano(bound_of_last(priced).0 - cost.0) } else { Nano::ZERO }
}

/// What the payers owe is the sum of what their requests cost, and nothing is under way.
async fn sums(priced: &Priced, payer: &SubAccount, spent: Nano, uncertain: Nano) {
    let expected = Sums { spent, held: Nano::ZERO, uncertain };
    let stands =
        eventually("all is settled", SOON, || async { (priced.books.sums(&payer.id).await == expected).then_some(()) });
    stands.await.unwrap_or_else(|error| panic!("{error}: {expected:?}"));
    priced.books.healthy().await;
}

#[tokio::test]
async fn what_the_provider_counts_is_charged() {
    let priced = Priced::start_few().await;
    for payer in payers(&priced).await {
        let mut spent = Nano::ZERO;
        for (stream, directives, read, written) in [
            (false, "words=5", 7, 5),
            (true, "words=5", 7, 5),
            (true, "words=5 no_done", 7, 5),
            // The last word counts.
            (true, "words=6 usage_twice", 7, 6),
            (true, "words=3 split=5 crlf", 7, 3),
            (false, "words=0 completion_tokens=0", 7, 0),
        ] {
            let what = format!("{directives} {stream}");
            let (answer, id) = send(&priced, &payer, &chat(&format!("[fake {directives}]"), stream)).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text);
            let cost = cost(read, written);
            is_charged(&priced, &id, &row("completed", 200, false, cost), &what).await;
            let dollars = format!("\"cost\":{}", cost.usd_json());
            assert!(answer.text.contains(&dollars), "{what}: {dollars} in {}", answer.text);
            if !stream {
                assert_eq!(answer.header("x-cost-cents"), cost.cents_json().to_string());
            }
            spent = spent.plus(cost);
        }
        sums(&priced, &payer, spent, Nano::ZERO).await;
    }
}

#[tokio::test]
async fn what_nobody_counts_is_estimated() {
    let priced = Priced::start_few().await;
    let [capped, free] = payers(&priced).await;
    for payer in [&capped, &free] {
        let (mut spent, mut in_doubt) = (Nano::ZERO, Nano::ZERO);
        for (stream, directives, words, outcome, status) in [
            (true, "words=4 no_usage", 4, "completed", 200),
            (false, "words=4 no_usage", 4, "completed", 200),
            (true, "words=9 cut_after=3", 3, "failed", 502),
            (true, "words=9 error_after=3", 3, "failed", 502),
            (true, "words=9 garbage_after=3", 3, "failed", 502),
            // The whole answer came; that it is the whole, its last chunk says.
            (true, "words=2 no_usage no_done", 2, "completed", 200),
        ] {
            let what = format!("{directives} {stream}");
            let body = chat(&format!("[fake {directives}] {}", "and so on ".repeat(9)), stream);
            let (answer, id) = send(&priced, payer, &body).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text);
            let found = priced.books.request(&id).await;
            let range = estimated(&body, words, if stream { 20 } else { answer.text.len() });
            assert!(range.contains(&found.cost), "{what}: {found:?}, not in {range:?}");
            is_charged(&priced, &id, &row(outcome, status, true, found.cost), &what).await;
            spent = spent.plus(found.cost);
            // Of an answer that broke off nobody knows what the provider bills beyond what came.
            if outcome == "failed" {
                in_doubt = in_doubt.plus(doubt(&priced, payer, &capped, found.cost));
            }
        }
        sums(&priced, payer, spent, in_doubt).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_came() {
    let priced = Priced::start_few().await;
    let [capped, free] = payers(&priced).await;
    for payer in [&capped, &free] {
        let body = chat("[fake words=9 stall_after=3]", true);
        let response = priced.request(0, &payer.key, CHAT, &body).send().await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let (mut stream, mut came) = (response.bytes_stream(), String::new());
        while came.matches(WORD).count() < 3 {
            came.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
        assert_eq!(priced.books.count("requests", &format!("id = '{id}'")).await, 0, "it is under way");
        drop(stream);
        let found = priced.books.request(&id).await;
        let range = estimated(&body, 3, 20);
        assert!(range.contains(&found.cost), "{found:?}, not in {range:?}");
        is_charged(&priced, &id, &row("client_left", 499, true, found.cost), "a client that left").await;
        sums(&priced, payer, found.cost, doubt(&priced, payer, &capped, found.cost)).await;
    }
    eventually("the provider is left, too", SOON, || async { (priced.chat.stats().aborted == 2).then_some(()) })
        .await
        .unwrap();
}

#[tokio::test]
async fn what_was_not_done_costs_nothing_and_what_may_have_been_is_in_doubt() {
    let priced = Priced::start_few().await;
    let [capped, free] = payers(&priced).await;
    for stream in [false, true] {
        for (directives, status, in_doubt) in [
            ("status=400", 400, false),
            ("status=401", 502, false),
            ("status=429", 429, false),
            ("status=503", 502, false),
            ("status=500", 502, false),
            ("status=502", 502, true),
            ("status=504", 504, true),
            ("cut_head", 502, true),
        ] {
            let what = format!("{directives} {stream}");
            let body = chat(&format!("[fake {directives}]"), stream);
            for payer in [&capped, &free] {
                let before = priced.books.sums(&payer.id).await;
                let (answer, id) = send_failing(&priced, payer, &body).await;
                assert_eq!(answer.status, status, "{what}: {}", answer.text);
                let outcome = if in_doubt { "uncertain" } else { "failed" };
                is_charged(&priced, &id, &row(outcome, status, false, Nano::ZERO), &what).await;
                // The bound of what was sent counts against the cap, if there is one.
                let more = if in_doubt { doubt(&priced, payer, &capped, Nano::ZERO) } else { Nano::ZERO };
                sums(&priced, payer, Nano::ZERO, before.uncertain.plus(more)).await;
            }
        }
    }
}

/// As [`send`], for what ends with an error of the provider's.
async fn send_failing(priced: &Priced, payer: &SubAccount, body: &Value) -> (Answer, String) {
    let answer = Answer::of(priced.request(0, &payer.key, CHAT, body).send().await.unwrap()).await;
    let id = answer.header("x-request-id").to_owned();
    (answer, id)
}
