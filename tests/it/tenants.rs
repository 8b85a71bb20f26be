//! Tenants, from outside: sub-accounts, keys with limits, rotation, tag budgets, and who may manage them.

use std::time::Duration;

use aig_api::router::{Access, ENDPOINTS, IdKind};
use aig_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, SOON};
use crate::servers::is_distributed;

/// A request with some key; a null body sends none.
pub async fn ask(gateway: &Gateway, key: &str, method: Method, path: &str, body: Value) -> Answer {
    let request = gateway.anonymous(method, &format!("{}{path}", gateway.url)).bearer_auth(key);
    let request = if body.is_null() { request } else { request.json(&body) };
    Answer::of(request.send().await.unwrap()).await
}

async fn chat(gateway: &Gateway, key: &str) -> Answer {
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    ask(gateway, key, Method::POST, "/v1/chat/completions", body).await
}

/// Waits until a key is refused: at once where it was changed, within two seconds on the other api processes.
async fn dies(gateway: &Gateway, key: &str) -> Answer {
    let refused = eventually("the key is refused", Duration::from_secs(4), || async {
        let answer = chat(gateway, key).await;
        (answer.status == 401).then_some(answer)
    });
    refused.await.unwrap()
}

pub async fn create(gateway: &Gateway, path: &str, body: Value) -> Value {
    let answer = gateway.post(path, &body).await;
    assert_eq!(answer.status, 201, "{path} {}", answer.body);
    answer.body
}

pub fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_else(|| panic!("{name} in {record}"))
}

fn refused(answer: &Answer, status: u16, kind: &str) {
    assert_eq!((answer.status, &answer.body["error"]["type"]), (status, &json!(kind)), "{}", answer.body);
}

#[tokio::test]
async fn a_sub_account_lives_and_dies_with_its_key() {
    let gateway = Gateway::start("").await;
    let given = json!({
        "name": " Customer ", "externalRef": "c-1", "spend_cap_cents": 1000.5, "rate_limit_rpm": 600,
        "default_tag": "customer", "allowed_models": ["sandbox/*"],
    });
    let made = create(&gateway, "/v1/sub-accounts", given).await;
    let (id, key) = (text(&made, "id"), text(&made, "key"));
    assert_eq!(made["scoped_key"], made["key"]);
    assert!(id.starts_with("sa_") && key.starts_with("sk-aig-"));
    let mut record = made.clone();
    record.as_object_mut().unwrap().retain(|name, _| name != "key" && name != "scoped_key");
    let created = made["created_at"].as_i64().unwrap();
    let expected = json!({
        "id": id, "object": "sub_account", "name": "Customer", "external_ref": "c-1", "spend_cap_cents": 1000.5,
        "rate_limit_rpm": 600, "default_tag": "customer", "allowed_models": ["sandbox/*"],
        "created_at": created, "created": created,
    });
    assert_eq!(record, expected);
    let path = format!("/v1/sub-accounts/{id}");
    assert_eq!(gateway.get(&path).await.body, record);

    // Its key works, carries its tag, and has a webhook secret of its own.
    let answer = chat(&gateway, key).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-limit-requests")), (200, "600"));
    let video = json!({ "prompt": "x", "duration": 1 });
    let job = ask(&gateway, key, Method::POST, "/v1/videos/generations", video.clone()).await.body;
    assert_eq!(job["tag"], "customer");
    let tagged = gateway.anonymous(Method::POST, &format!("{}/v1/videos/generations", gateway.url)).bearer_auth(key);
    let tagged = Answer::of(tagged.header("x-aig-tag", "own").json(&video).send().await.unwrap()).await;
    assert_eq!(tagged.body["tag"], "own");
    let secret = ask(&gateway, key, Method::GET, "/v1/webhook-secret", Value::Null).await.body;
    assert!(text(&secret, "secret").starts_with("whsec_"));
    assert_ne!(secret, gateway.get("/v1/webhook-secret").await.body);

    let change = json!({ "name": "Renamed", "spendCapCents": 0, "default_tag": null, "rate_limit_rpm": null });
    let patched = ask(&gateway, &gateway.key, Method::PATCH, &path, change).await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    for (name, value) in [("name", json!("Renamed")), ("spend_cap_cents", json!(0)), ("default_tag", Value::Null)] {
        assert_eq!(patched.body[name], value);
    }
    assert_eq!(patched.body["external_ref"], "c-1", "what is not named stays");

    let deleted = ask(&gateway, &gateway.key, Method::DELETE, &path, Value::Null).await;
    assert_eq!(deleted.body, json!({ "id": id, "object": "sub_account", "deleted": true, "status": "ok" }));
    refused(&dies(&gateway, key).await, 401, "authentication_error");
    for method in [Method::GET, Method::DELETE] {
        refused(&ask(&gateway, &gateway.key, method, &path, Value::Null).await, 404, "not_found");
    }
    assert_eq!(gateway.get("/v1/sub-accounts").await.body["data"], json!([]));
    for secret in [key, text(&secret, "secret")] {
        assert!(!gateway.log().contains(secret), "no secret is logged");
    }
}

#[tokio::test]
async fn bad_settings_are_named_and_nothing_is_made() {
    let gateway = Gateway::start("").await;
    for (body, param) in [
        (json!({}), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x".repeat(201) }), "name"),
        (json!({ "name": "x", "spend_cap_cents": -1 }), "spend_cap_cents"),
        (json!({ "name": "x", "spend_cap_cents": "5" }), "spend_cap_cents"),
        (json!({ "name": "x", "spend_cap_cents": i64::MAX }), "spend_cap_cents"),
        (json!({ "name": "x", "rate_limit_rpm": 0 }), "rate_limit_rpm"),
        (json!({ "name": "x", "default_tag": "t".repeat(65) }), "default_tag"),
        (json!({ "name": "x", "allowed_models": [] }), "allowed_models"),
    ] {
        let answer = gateway.post("/v1/sub-accounts", &body).await;
        refused(&answer, 400, "invalid_request_error");
        assert_eq!(answer.body["error"]["param"], param, "{body}");
    }
    for (body, param) in [
        (json!({ "expires_at": 1 }), "expires_at"),
        (json!({ "expires_in": 5, "expires_at": 4_000_000_000_i64 }), "expires_in"),
    ] {
        assert_eq!(gateway.post("/v1/keys", &body).await.body["error"]["param"], param, "{body}");
    }
    assert_eq!(gateway.get("/v1/sub-accounts").await.body["data"], json!([]));
    assert_eq!(gateway.get("/v1/keys").await.body["data"].as_array().unwrap().len(), 2, "first-key and admin-key");
}

#[tokio::test]
async fn what_another_account_manages_is_not_there() {
    let gateway = Gateway::start("").await;
    let other = gateway.other_account().await;
    let sub_account = create(&gateway, "/v1/sub-accounts", json!({ "name": "mine" })).await;
    let key = create(&gateway, "/v1/keys", json!({})).await;
    let budget = create(&gateway, "/v1/budgets", json!({ "tag": "t", "monthly_cap_cents": 100 })).await;
    let mut tried = 0;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.access == Access::Manage && !endpoint.ids.is_empty()) {
        let id = match endpoint.ids {
            [IdKind::SubAccount] => text(&sub_account, "id"),
            [IdKind::ApiKey] => text(&key, "id"),
            [IdKind::Budget] => text(&budget, "id"),
            ids => panic!("an id of another kind: {ids:?}"),
        };
        // A body that every one of them would take.
        let body = json!({ "name": "theirs", "monthly_cap_cents": 1 });
        let foreign = endpoint.path.replace("{id}", id);
        let never = endpoint.path.replace("{id}", &format!("{}x", &id[..id.len() - 1]));
        let (a, b) = (
            ask(&gateway, &other, endpoint.method.clone(), &foreign, body.clone()).await,
            ask(&gateway, &other, endpoint.method.clone(), &never, body).await,
        );
        refused(&a, 404, "not_found");
        assert_eq!(a.body["error"]["message"], b.body["error"]["message"], "{foreign}");
        tried += 1;
    }
    assert_eq!(tried, 7);
    let id = text(&sub_account, "id");
    for (method, path, body) in [
        (Method::GET, format!("/v1/keys?sub_account_id={id}"), Value::Null),
        (Method::POST, "/v1/keys".to_owned(), json!({ "sub_account_id": id })),
    ] {
        refused(&ask(&gateway, &other, method, &path, body).await, 404, "not_found");
    }
    for path in ["/v1/sub-accounts", "/v1/budgets"] {
        assert_eq!(ask(&gateway, &other, Method::GET, path, Value::Null).await.body["data"], json!([]));
        let after = format!("{path}?after={}", text(if path.contains("sub") { &sub_account } else { &budget }, "id"));
        refused(&ask(&gateway, &other, Method::GET, &after, Value::Null).await, 400, "invalid_request_error");
    }
    assert_eq!(chat(&gateway, text(&key, "key")).await.status, 200, "nothing happened to it");
}

#[tokio::test]
async fn keys_that_are_limited_or_a_sub_accounts_manage_nothing() {
    let gateway = Gateway::start("").await;
    let sub_account = create(&gateway, "/v1/sub-accounts", json!({ "name": "s" })).await;
    let further = create(&gateway, "/v1/keys", json!({ "sub_account_id": sub_account["id"] })).await;
    let mut cannot = vec![text(&sub_account, "key").to_owned(), text(&further, "key").to_owned()];
    for limit in [
        json!({ "spend_cap_cents": 500 }),
        json!({ "rate_limit_rpm": 600 }),
        json!({ "allowed_models": ["*"] }),
        json!({ "expires_in": 600 }),
    ] {
        let key = create(&gateway, "/v1/keys", limit).await;
        cannot.push(text(&key, "key").to_owned());
    }
    let whole = create(&gateway, "/v1/keys", json!({ "name": "whole" })).await;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.access == Access::Manage) {
        let path = endpoint.path.replace("{id}", "x");
        for key in &cannot {
            let answer = ask(&gateway, key, endpoint.method.clone(), &path, Value::Null).await;
            refused(&answer, 403, "scope_exceeded");
        }
        let answer = ask(&gateway, text(&whole, "key"), endpoint.method.clone(), &path, Value::Null).await;
        assert_ne!(answer.status, 403, "{} {path}", endpoint.method);
    }
    for key in &cannot {
        assert_eq!(chat(&gateway, key).await.status, 200);
    }
    // Whoever could rotate the admin key would have it.
    let keys = gateway.get("/v1/keys").await.body;
    let admin = keys["data"].as_array().unwrap().iter().find(|key| key["scope"] == "admin").unwrap();
    let path = format!("/v1/keys/{}", text(admin, "id"));
    refused(&gateway.post(&format!("{path}/rotate"), &json!({})).await, 403, "scope_exceeded");
    refused(&ask(&gateway, &gateway.key, Method::DELETE, &path, Value::Null).await, 403, "scope_exceeded");
}

#[tokio::test]
async fn keys_are_listed_without_their_text_and_die_when_deleted() {
    let gateway = Gateway::start("").await;
    let sub_account = create(&gateway, "/v1/sub-accounts", json!({ "name": "s" })).await;
    let given = json!({ "name": "CI", "spendCapCents": 1_000.000_000_1, "rate_limit_rpm": 60, "expires_in": 600 });
    let made = create(&gateway, "/v1/keys", given).await;
    let (id, key) = (text(&made, "id"), text(&made, "key"));
    let life = made["expires_at"].as_i64().unwrap() - made["created_at"].as_i64().unwrap();
    assert!((600..=601).contains(&life), "{life}");
    assert!(key.starts_with(text(&made, "prefix")) && key.contains(text(&made, "public_id")));
    let page = gateway.get("/v1/keys?limit=1").await;
    let mut record = made.clone();
    record.as_object_mut().unwrap().remove("key");
    assert_eq!(made["spend_cap_cents"].to_string(), "1000.0000001");
    assert_eq!((&page.body["data"][0], &page.body["has_more"]), (&record, &json!(true)));
    assert_eq!(page.body["last_id"], made["id"]);
    let rest = gateway.get(&format!("/v1/keys?after={id}")).await.body;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (2, &json!(false)));

    let theirs = format!("/v1/keys?sub_account_id={}", text(&sub_account, "id"));
    let theirs = gateway.get(&theirs).await.body["data"].clone();
    assert_eq!((theirs.as_array().unwrap().len(), &theirs[0]["sub_account_id"]), (1, &sub_account["id"]));
    for (id, key) in [(id, key), (text(&theirs[0], "id"), text(&sub_account, "key"))] {
        assert_eq!(chat(&gateway, key).await.status, 200);
        let path = format!("/v1/keys/{id}");
        let first = ask(&gateway, &gateway.key, Method::DELETE, &path, Value::Null).await;
        assert_eq!((first.status, first.body["revoked_at"].is_i64()), (200, true), "{}", first.body);
        assert_eq!(ask(&gateway, &gateway.key, Method::DELETE, &path, Value::Null).await.body, first.body);
        dies(&gateway, key).await;
        refused(&gateway.post(&format!("{path}/rotate"), &json!({})).await, 400, "invalid_request_error");
    }
    // A key may end itself.
    let own = create(&gateway, "/v1/keys", json!({})).await;
    let path = format!("/v1/keys/{}", text(&own, "id"));
    assert_eq!(ask(&gateway, text(&own, "key"), Method::DELETE, &path, Value::Null).await.status, 200);
    let again = ask(&gateway, text(&own, "key"), Method::POST, "/v1/keys", json!({})).await;
    assert_eq!(again.status, 401, "managing does not wait for what is remembered to be forgotten");
}

#[tokio::test]
async fn a_rotated_key_dies_when_the_new_one_is_first_used() {
    let gateway = Gateway::start("").await;
    let old =
        create(&gateway, "/v1/keys", json!({ "name": "app", "spend_cap_cents": 500, "rate_limit_rpm": 30 })).await;
    let new = create(&gateway, &format!("/v1/keys/{}/rotate", text(&old, "id")), json!({})).await;
    for name in ["name", "spend_cap_cents", "rate_limit_rpm", "allowed_models", "expires_at"] {
        assert_eq!(new[name], old[name], "{name}");
    }
    assert_eq!(new["replaces"], old["id"]);
    assert_ne!(new["key"], old["key"]);
    let answer = chat(&gateway, text(&old, "key")).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, "9"));
    let answer = chat(&gateway, text(&new, "key")).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, "8"), "one bucket for both");
    dies(&gateway, text(&old, "key")).await;
    assert_eq!(chat(&gateway, text(&new, "key")).await.status, 200);
    let keys = gateway.get("/v1/keys").await.body["data"].clone();
    let find = |id: &Value| keys.as_array().unwrap().iter().find(|key| key["id"] == *id).unwrap().clone();
    assert!(find(&old["id"])["revoked_at"].is_i64());
    assert_eq!((&find(&new["id"])["replaces"], &find(&new["id"])["revoked_at"]), (&Value::Null, &Value::Null));

    // A forged text with the right public id is no use of the key.
    let third = create(&gateway, &format!("/v1/keys/{}/rotate", text(&new, "id")), json!({})).await;
    let forged = format!("{}x", &text(&third, "key")[..text(&third, "key").len() - 1]);
    assert_eq!(chat(&gateway, &forged).await.status, 401);
    assert_eq!(chat(&gateway, text(&new, "key")).await.status, 200);

    // The parent may rotate a sub-account's key, and what comes of it is still the sub-account's.
    let sub_account = create(&gateway, "/v1/sub-accounts", json!({ "name": "s" })).await;
    let path = format!("/v1/keys?sub_account_id={}", text(&sub_account, "id"));
    let first = gateway.get(&path).await.body["data"][0].clone();
    let second = create(&gateway, &format!("/v1/keys/{}/rotate", text(&first, "id")), json!({})).await;
    assert_eq!(second["sub_account_id"], sub_account["id"]);
    assert_eq!(chat(&gateway, text(&second, "key")).await.status, 200);
    dies(&gateway, text(&sub_account, "key")).await;
}

#[tokio::test]
async fn what_changes_on_one_api_process_is_known_on_another_in_two_seconds() {
    if !is_distributed() {
        return;
    }
    let gateway = Gateway::start_distributed("", &[], &["api", "api"]).await;
    let urls = gateway.urls("api");
    let models = async |url: &str, key: &str| {
        let answer = gateway.anonymous(Method::GET, &format!("{url}/v1/models")).bearer_auth(key).send().await.unwrap();
        answer.status().as_u16()
    };
    let known = |key: String| {
        let (models, url) = (&models, &urls[1]);
        async move {
            let refused = eventually("the other process knows", Duration::from_millis(2500), || async {
                (models(url, &key).await == 401).then_some(())
            });
            refused.await.unwrap();
        }
    };
    // Revoked on the first, while the second remembers it.
    let key = create(&gateway, "/v1/keys", json!({})).await;
    assert_eq!(models(&urls[1], text(&key, "key")).await, 200);
    let path = format!("/v1/keys/{}", text(&key, "id"));
    assert_eq!(ask(&gateway, &gateway.key, Method::DELETE, &path, Value::Null).await.status, 200);
    known(text(&key, "key").to_owned()).await;

    // First used on both at once.
    let old = create(&gateway, "/v1/keys", json!({})).await;
    assert_eq!(models(&urls[1], text(&old, "key")).await, 200);
    let new = create(&gateway, &format!("/v1/keys/{}/rotate", text(&old, "id")), json!({})).await;
    let new = text(&new, "key");
    let both = tokio::join!(models(&urls[0], new), models(&urls[1], new));
    assert_eq!(both, (200, 200));
    known(text(&old, "key").to_owned()).await;
    assert_eq!((models(&urls[0], new).await, models(&urls[1], new).await), (200, 200));
}

#[tokio::test]
async fn a_key_ends_at_its_time() {
    let gateway = Gateway::start("").await;
    let key = create(&gateway, "/v1/keys", json!({ "expires_in": 2 })).await;
    assert_eq!(chat(&gateway, text(&key, "key")).await.status, 200);
    let answer = dies(&gateway, text(&key, "key")).await;
    assert!(answer.text.contains("expired"), "{}", answer.text);
    let rotated = gateway.post(&format!("/v1/keys/{}/rotate", text(&key, "id")), &json!({})).await;
    refused(&rotated, 400, "invalid_request_error");
}

#[tokio::test]
async fn every_route_that_costs_money_asks_which_models_a_key_may_use() {
    let gateway = Gateway::start("").await;
    let body = json!({ "prompt": "x", "messages": [{ "role": "user", "content": "hi" }] });
    let none = create(&gateway, "/v1/keys", json!({ "allowed_models": ["other/*"] })).await;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.costs_money) {
        let answer = ask(&gateway, text(&none, "key"), endpoint.method.clone(), endpoint.path, body.clone()).await;
        refused(&answer, 403, "scope_exceeded");
        assert_eq!(answer.body["error"]["param"], "model");
        assert!(answer.text.contains("sandbox/"), "{}", answer.text);
    }
    let listed = ask(&gateway, text(&none, "key"), Method::GET, "/v1/models", Value::Null).await;
    assert_eq!(listed.body["data"], json!([]));

    // Both lists, the sub-account's and the key's, must allow a model.
    let models = json!({ "name": "s", "allowed_models": ["*chat", "sandbox/vid*"] });
    let sub_account = create(&gateway, "/v1/sub-accounts", models).await;
    let id = &sub_account["id"];
    let key =
        create(&gateway, "/v1/keys", json!({ "sub_account_id": id, "allowed_models": ["sandbox/*o", "x"] })).await;
    let key = text(&key, "key");
    let listed = ask(&gateway, key, Method::GET, "/v1/models", Value::Null).await.body;
    let ids: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|model| text(model, "id")).collect();
    assert_eq!(ids, ["sandbox/video"]);
    assert_eq!(ask(&gateway, key, Method::GET, "/v1/models/sandbox/video", Value::Null).await.status, 200);
    let hidden = ask(&gateway, key, Method::GET, "/v1/models/sandbox/chat", Value::Null).await;
    refused(&hidden, 404, "model_not_found");
    refused(&chat(&gateway, key).await, 403, "scope_exceeded");
    let video = ask(&gateway, key, Method::POST, "/v1/videos/generations", body.clone()).await;
    assert_eq!(video.status, 202, "{}", video.body);

    // A change of the sub-account reaches its keys.
    let path = format!("/v1/sub-accounts/{}", text(&sub_account, "id"));
    let patched = ask(&gateway, &gateway.key, Method::PATCH, &path, json!({ "allowed_models": ["x"] })).await;
    assert_eq!(patched.status, 200);
    let refused_then = eventually("the change is known", SOON, || async {
        let answer = ask(&gateway, key, Method::POST, "/v1/videos/generations", body.clone()).await;
        (answer.status == 403).then_some(())
    });
    refused_then.await.unwrap();
}

#[tokio::test]
async fn the_lowest_rate_limit_holds() {
    let gateway = Gateway::start("[tiers]\nunlimited = 600\n").await;
    let sub_account = create(&gateway, "/v1/sub-accounts", json!({ "name": "s", "rate_limit_rpm": 60 })).await;
    let limit = async |key: &str| chat(&gateway, key).await.header("x-ratelimit-limit-requests").to_owned();
    assert_eq!(limit(&gateway.key).await, "600");
    assert_eq!(limit(text(&sub_account, "key")).await, "60");
    for (own, rpm) in [(30, "30"), (90, "60")] {
        let body = json!({ "sub_account_id": sub_account["id"], "rate_limit_rpm": own });
        assert_eq!(limit(text(&create(&gateway, "/v1/keys", body).await, "key")).await, rpm);
    }
    let wide = create(&gateway, "/v1/keys", json!({ "rate_limit_rpm": 6000 })).await;
    assert_eq!(limit(text(&wide, "key")).await, "600", "no key gets more than its tier");
}

#[tokio::test]
async fn tag_budgets_are_made_changed_and_ended() {
    let gateway = Gateway::start("").await;
    let made = create(&gateway, "/v1/budgets", json!({ "tag": "équipe:a", "monthlyCapCents": 1000 })).await;
    let expected = json!({
        "id": made["id"], "object": "budget", "tag": "équipe:a", "monthly_cap_cents": 1000,
        "created_at": made["created_at"], "updated_at": made["updated_at"],
    });
    assert_eq!(made, expected);
    let path = format!("/v1/budgets/{}", text(&made, "id"));
    assert!(path.contains("/bud_"));
    let again = gateway.post("/v1/budgets", &json!({ "tag": "équipe:a", "monthly_cap_cents": 0 })).await;
    assert_eq!((again.status, &again.body["id"], &again.body["monthly_cap_cents"]), (200, &made["id"], &json!(0)));
    let patched = ask(&gateway, &gateway.key, Method::PATCH, &path, json!({ "monthly_cap_cents": 0.25 })).await;
    assert_eq!((patched.status, &patched.body["monthly_cap_cents"]), (200, &json!(0.25)));
    let list = gateway.get("/v1/budgets").await.body;
    assert_eq!((&list["data"], &list["has_more"]), (&json!([patched.body]), &json!(false)));
    for (body, param) in [
        (json!({ "tag": " ", "monthly_cap_cents": 1 }), "tag"),
        (json!({ "tag": "t".repeat(65), "monthly_cap_cents": 1 }), "tag"),
        (json!({ "tag": "t" }), "monthly_cap_cents"),
        (json!({ "tag": "t", "monthly_cap_cents": null }), "monthly_cap_cents"),
    ] {
        assert_eq!(gateway.post("/v1/budgets", &body).await.body["error"]["param"], param, "{body}");
    }
    let deleted = ask(&gateway, &gateway.key, Method::DELETE, &path, Value::Null).await;
    assert_eq!((deleted.status, &deleted.body["deleted"]), (200, &json!(true)));
    refused(&ask(&gateway, &gateway.key, Method::DELETE, &path, Value::Null).await, 404, "not_found");
    assert_eq!(gateway.get("/v1/budgets").await.body["data"], json!([]));
    let whole = create(&gateway, "/v1/budgets", json!({ "monthly_cap_cents": 10 })).await;
    assert_eq!(whole["tag"], Value::Null);
    let job = gateway.post("/v1/3d/generations", &json!({ "prompt": "a cube" })).await;
    assert_eq!(
        (job.status, &job.body["error"]["budget"]["scope"]),
        (402, &json!("account")),
        "a mesh costs 10.5 cents"
    );
}

#[tokio::test]
async fn a_repeated_request_gets_its_job_though_the_key_may_not_use_the_model_any_more() {
    let gateway = Gateway::start("").await;
    let made = create(&gateway, "/v1/sub-accounts", json!({ "name": "a" })).await;
    let submit = async |prompt: &str| {
        let request = gateway.anonymous(Method::POST, &format!("{}/v1/3d/generations", gateway.url));
        let request = request.bearer_auth(text(&made, "key")).header("idempotency-key", "once");
        Answer::of(request.json(&json!({ "prompt": prompt })).send().await.unwrap()).await
    };
    let first = submit("a cube").await;
    assert_eq!(first.status, 202);
    let path = format!("/v1/sub-accounts/{}", text(&made, "id"));
    ask(&gateway, &gateway.key, Method::PATCH, &path, json!({ "allowed_models": ["sandbox/chat"] })).await;
    let again = submit("a cube").await;
    assert_eq!((again.status, &again.body["id"]), (202, &first.body["id"]), "{}", again.text);
    assert_eq!(again.header("idempotent-replayed"), "true");
    refused(&submit("another").await, 422, "idempotency_mismatch");
}
