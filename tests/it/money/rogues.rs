//! Providers that count wrongly: what they say they used is charged, as far as it can be meant, and stops what comes next; what
//! cannot be meant is estimated; and no estimate of ours is ever more than what was reserved.

use aig_domain::Nano;
use serde_json::Value;

use super::books::Sums;
use super::ends::cost;
use super::{CHAT, Priced, chat, refused, times};

#[tokio::test]
async fn more_than_was_allowed_is_charged_in_full_and_stops_what_comes_next() {
    let priced = Priced::start_few().await;
    for stream in [false, true] {
        let body = chat("[fake hold bound_usage]", stream);
        priced.chat.release();
        let price = priced.price_of(&body).await;
        // Room for five of these calls; the first one uses ten times what it may.
        let sub_account = priced.sub_account(times(price, 5)).await;
        let rogue = chat("[fake bound_usage=10  ]", stream);
        assert_eq!(rogue.to_string().len(), body.to_string().len(), "they cost the same");
        let answer = priced.send(0, &sub_account.key, CHAT, &rogue).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let spent = times(price, 10);
        let expected = Sums { spent, held: Nano::ZERO, uncertain: Nano::ZERO };
        assert_eq!(priced.books.quiet(&sub_account.id).await, expected);
        let calls = priced.chat.stats().requests;
        for turn in 0..3 {
            let next = priced.send(turn, &sub_account.key, CHAT, &body).await;
            assert_eq!(refused(&next, &sub_account), spent);
        }
        assert_eq!(priced.chat.stats().requests, calls);
        let overrun = times(price, 9).0;
        assert!(overrun > 0 && priced.gateway.metrics().await.contains("aig_budget_overrun_nano_total"));
    }
    priced.books.healthy().await;
}

/// Which estimate may stand for a count: at least the tokens of the words that came.
fn at_least(body: &Value, words: usize) -> Nano {
    let tokens = |bytes: usize| i64::try_from(bytes.div_ceil(4)).unwrap();
    cost(tokens(body["messages"].to_string().len()), tokens(words * 5))
}

#[tokio::test]
async fn what_cannot_be_meant_is_estimated_and_no_answer_is_free() {
    let priced = Priced::start_few().await;
    for payer in [priced.sub_account(Nano(1000 * Nano::CENT.0)).await, priced.sub_account(None).await] {
        let mut spent = Nano::ZERO;
        for stream in [false, true] {
            for (usage, expected) in [
                ("prompt_tokens=0 completion_tokens=0", None),
                ("prompt_tokens=-7 completion_tokens=-3", None),
                ("prompt_tokens=1e300 completion_tokens=3", None),
                ("prompt_tokens=7 completion_tokens=1e300", None),
                ("prompt_tokens=18446744073709551615 completion_tokens=1", None),
                ("prompt_tokens=lots completion_tokens=many", None),
                ("prompt_tokens=null completion_tokens=null", None),
                ("prompt_tokens={} completion_tokens=true", None),
                // What can be meant of it is.
                ("prompt_tokens=7.0 completion_tokens=2.5", Some(cost(7, 3))),
                ("prompt_tokens=7 completion_tokens=lots", Some(cost(7, 0))),
                ("prompt_tokens=-7 completion_tokens=3", Some(cost(0, 3))),
            ] {
                let body = chat(&format!("[fake words=3 {usage}]"), stream);
                let answer = priced.send(0, &payer.key, CHAT, &body).await;
                assert_eq!(answer.status, 200, "{usage} {stream}: {}", answer.text);
                let id = answer.header("x-request-id");
                let row = priced.books.request(id).await;
                let charged = row.cost;
                if let Some(cost) = expected {
                    assert_eq!((charged, row.estimated), (cost, false), "{usage} {stream}");
                } else {
                    assert!(row.estimated, "{usage} {stream}: {row:?}");
                    let most = at_least(&body, 3).plus(cost(0, 100));
                    assert!((at_least(&body, 3)..=most).contains(&charged), "{usage} {stream}: {row:?}");
                }
                assert_eq!((row.outcome.as_str(), row.status), ("completed", 200));
                assert_eq!(priced.books.charges(id).await, [charged], "{usage} {stream}");
                spent = spent.plus(charged);
            }
        }
        let expected = Sums { spent, held: Nano::ZERO, uncertain: Nano::ZERO };
        assert_eq!(priced.books.quiet(&payer.id).await, expected);
    }
    priced.books.healthy().await;
}

#[tokio::test]
async fn an_estimate_is_never_more_than_what_was_reserved() {
    let priced = Priced::start_few().await;
    for stream in [false, true] {
        // Ten tokens of which each is long: by its bytes it would be many more.
        let body = chat("[fake hold bound_usage]", stream);
        priced.chat.release();
        let price = priced.price_of(&body).await;
        let silent = chat("[fake no_usage words=99", stream);
        assert_eq!(silent.to_string().len(), body.to_string().len(), "they cost the same");
        let sub_account = priced.sub_account(times(price, 3)).await;
        for turn in 0..3 {
            let answer = priced.send(turn, &sub_account.key, CHAT, &silent).await;
            assert_eq!(answer.status, 200, "call {turn} of three that fit: {}", answer.text);
            let row = priced.books.request(answer.header("x-request-id")).await;
            assert!(row.estimated && row.cost <= price, "{stream}: {row:?} of {price:?}");
        }
        let sums = priced.books.quiet(&sub_account.id).await;
        assert!(sums.spent <= times(price, 3), "the provider did as it was told, and the cap holds: {sums:?}");
    }
    priced.books.healthy().await;
}
