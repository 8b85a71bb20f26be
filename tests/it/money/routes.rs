//! `exhausted_key_pays_nothing`: every route that costs money, below every kind of cap that leaves nothing.

use aig_api::router::ENDPOINTS;
use aig_domain::Nano;
use aig_domain::tenant::Change;
use reqwest::Method;
use serde_json::{Value, json};

use super::{CHAT, Priced, VIDEO, chat, video};
use crate::gateway::Answer;
use crate::tenants::{create, text};

/// The smallest bodies that a route would take from a key with money, with a model that costs some.
fn bodies(method: &Method, path: &str) -> Vec<Value> {
    let job = |model: &str| json!({ "model": model, "prompt": "x", "duration": 1 });
    match (method.as_str(), path) {
        ("POST", CHAT) => {
            let default = json!({ "messages": [{ "role": "user", "content": "hi" }] });
            vec![chat("hi", false), chat("hi", true), default]
        }
        ("POST", VIDEO) => vec![video("x"), job("sandbox/video")],
        ("POST", "/v1/audio/music") => vec![job("media/any"), job("sandbox/music")],
        ("POST", "/v1/3d/generations") => vec![job("media/any"), job("sandbox/3d")],
        _ => panic!("{method} {path} costs money: say here what it takes, so that this test can try it"),
    }
}

#[tokio::test]
async fn exhausted_key_pays_nothing() {
    let mut priced = Priced::start().await;
    let gateway = &priced.gateway;
    let nothing = priced.sub_account(Nano::ZERO).await;
    let key = create(gateway, "/v1/keys", json!({ "spend_cap_cents": 0 })).await;
    create(gateway, "/v1/budgets", json!({ "tag": "spent", "monthly_cap_cents": 0 })).await;
    let below = priced.sub_account(None).await;
    let own = create(gateway, "/v1/keys", json!({ "sub_account_id": below.id, "spend_cap_cents": 0 })).await;
    // Whose key, with which tag, and the scope that stands in the way.
    let cases = [
        (nothing.key.as_str(), None, "sub_account", nothing.id.clone()),
        (text(&key, "key"), None, "key", text(&key, "id").to_owned()),
        (text(&own, "key"), None, "key", text(&own, "id").to_owned()),
        (&gateway.key, Some("spent"), "tag", "spent".to_owned()),
        (&below.key, Some("spent"), "tag", "spent".to_owned()),
    ];
    let mut tried = 0;
    for (key, tag, scope, scope_id) in &cases {
        tried += every_route(&priced, key, *tag, (scope, Some(scope_id))).await;
    }
    // The account itself, by which all of its keys are bound.
    let account = priced.books.rows("SELECT id FROM accounts WHERE parent_id IS NULL").await.remove(0);
    priced.books.store.set_cap(&account, &account, &Change::Set(Nano::ZERO)).await.unwrap();
    let fresh = priced.sub_account(Nano::CENT).await;
    // No route sets such a cap, so that nobody tells the processes: they know it anew.
    priced.gateway.kill();
    priced.gateway.spawn().await;
    // A sub-account is not told whose money is at its end.
    for (key, known) in [(&priced.gateway.key, Some(account.as_str())), (&fresh.key, None)] {
        tried += every_route(&priced, key, None, ("account", known)).await;
    }
    assert!(tried >= 7 * 9, "{tried}");
    assert_eq!((priced.chat.stats().requests, priced.media.stats().submits), (0, 0), "no provider was called");
    for table in ["reservations", "ledger", "requests", "jobs", "tasks"] {
        assert_eq!(priced.books.count(table, "TRUE").await, 0, "nothing is left in {table}");
    }
    assert_eq!(priced.books.count("budget_periods", "spent + held + uncertain + requests > 0").await, 0);
    priced.books.healthy().await;
}

/// Tries every route that costs money on every process; gives how many answers were held to the rule.
async fn every_route(priced: &Priced, key: &str, tag: Option<&str>, scope: (&str, Option<&str>)) -> usize {
    let mut tried = 0;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.costs_money) {
        assert_eq!(endpoint.method, Method::POST);
        for body in bodies(&endpoint.method, endpoint.path) {
            let mut request = priced.request(tried, key, endpoint.path, &body);
            if let Some(tag) = tag {
                request = request.header("x-aig-tag", tag);
            }
            let answer = Answer::of(request.header("idempotency-key", tried).send().await.unwrap()).await;
            let (error, what) = (&answer.body["error"], format!("{} {body}: {}", endpoint.path, answer.text));
            assert_eq!((answer.status, &error["type"]), (402, &json!("budget_exceeded")), "{what}");
            let budget = &error["budget"];
            assert_eq!((&budget["scope"], &budget["scope_id"]), (&json!(scope.0), &json!(scope.1)));
            let is_foreign = matches!(scope.0, "account" | "tag") && key != priced.gateway.key;
            assert_eq!(budget["cap_cents"].is_null(), is_foreign, "{what}");
            assert_eq!(error["request_id"], answer.header("x-request-id"));
            assert!(answer.header("x-cost-cents").is_empty() && answer.header("location").is_empty(), "{what}");
            tried += 1;
        }
    }
    tried
}
