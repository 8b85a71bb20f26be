//! Usage and balance, from outside: what is shown is what was charged, and only to whom it belongs.

use aig_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, SOON};

/// A request with some key.
async fn ask(gateway: &Gateway, key: &str, method: Method, path: &str, tag: Option<&str>, body: &Value) -> Answer {
    let request = gateway.anonymous(method, &format!("{}{path}", gateway.url)).bearer_auth(key);
    let request = if let Some(tag) = tag { request.header("x-aig-tag", tag) } else { request };
    let request = if body.is_null() { request } else { request.json(body) };
    Answer::of(request.send().await.unwrap()).await
}

async fn get(gateway: &Gateway, key: &str, path: &str) -> Value {
    let answer = ask(gateway, key, Method::GET, path, None, &Value::Null).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.body
}

/// A chat call; gives the id of its request and what it cost in cents.
async fn chat(gateway: &Gateway, key: &str, tag: Option<&str>, stream: bool) -> (String, f64) {
    let body =
        json!({ "model": "sandbox/chat", "messages": [{ "role": "user", "content": "hi there" }], "stream": stream });
    let answer = ask(gateway, key, Method::POST, "/v1/chat/completions", tag, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    (answer.header("x-request-id").to_owned(), answer.header("x-cost-cents").parse().unwrap_or_default())
}

/// A video of two seconds; gives the job when it is complete.
async fn video(gateway: &Gateway, key: &str, tag: Option<&str>) -> Value {
    let body = json!({ "prompt": "x", "duration": 2 });
    let answer = ask(gateway, key, Method::POST, "/v1/videos/generations", tag, &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    gateway.wait(answer.body["id"].as_str().unwrap()).await
}

/// Waits until this many requests are on record; gives them, newest first.
async fn recent(gateway: &Gateway, key: &str, count: usize) -> Vec<Value> {
    let rows = eventually("the requests are on record", SOON, || async {
        let rows = get(gateway, key, "/v1/usage/recent").await["data"].as_array().unwrap().clone();
        (rows.len() >= count).then_some(rows)
    });
    let rows = rows.await.unwrap();
    assert_eq!(rows.len(), count);
    rows
}

fn cents(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn same(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6, "{a} and {b}");
}

#[tokio::test]
async fn what_is_shown_is_what_was_charged() {
    let gateway = Gateway::start("").await;
    let key = &gateway.key;
    let (plain, plain_cost) = chat(&gateway, key, Some("a"), false).await;
    let (stream, _) = chat(&gateway, key, Some("a"), true).await;
    let job = video(&gateway, key, None).await;
    let rows = recent(&gateway, key, 3).await;
    let row = |id: &str| rows.iter().find(|row| row["request_id"] == id).unwrap_or_else(|| panic!("{id}: {rows:?}"));
    let (plain, stream, video) = (row(&plain), row(&stream), row(job["request_id"].as_str().unwrap()));
    same(cents(&plain["cost_cents"]), plain_cost);
    assert_eq!(video["cost_cents"], job["cost_cents"]);
    same(cents(&video["cost_cents"]), 10.5);
    assert_eq!(video["job_id"], job["id"]);
    for (row, model, tag) in [
        (plain, "sandbox/chat", json!("a")),
        (stream, "sandbox/chat", json!("a")),
        (video, "sandbox/video", json!(null)),
    ] {
        assert_eq!((&row["model"], &row["tag"], &row["provider"]), (&json!(model), &tag, &json!("sandbox")), "{row}");
        assert_eq!(
            (&row["status"], &row["outcome"], &row["estimated"]),
            (&json!(200), &json!("completed"), &json!(false))
        );
        assert_eq!(row["sub_account_id"], json!(null));
        assert!(row["latency_ms"].is_u64() && row["key_id"].as_str().unwrap().starts_with("key_"), "{row}");
        let at = row["created_at"].as_str().unwrap();
        assert!(at.len() == 24 && at.as_bytes()[10] == b'T' && at.ends_with('Z'), "{at}");
    }
    let total: f64 = rows.iter().map(|row| cents(&row["cost_cents"])).sum();

    for row in [plain, stream] {
        let (input, output) = (cents(&row["input_tokens"]), cents(&row["output_tokens"]));
        assert!(input > 0.0 && output > 0.0 && row["cached_tokens"] == 0, "{row}");
        let one = get(&gateway, key, &format!("/v1/requests/{}", row["request_id"].as_str().unwrap())).await;
        for name in ["request_id", "model", "cost_cents", "latency_ms", "created_at", "tag"] {
            assert_eq!(one[name], row[name], "{name}");
        }
        let cost = &one["cost"];
        let expected = json!([
            { "unit": "input", "quantity": row["input_tokens"], "price_cents": 100, "per": 1_000_000,
                "amount_cents": cost["lines"][0]["amount_cents"] },
            { "unit": "output", "quantity": row["output_tokens"], "price_cents": 400, "per": 1_000_000,
                "amount_cents": cost["lines"][1]["amount_cents"] },
        ]);
        assert_eq!(cost["lines"], expected);
        same(cents(&cost["lines"][0]["amount_cents"]), input / 10_000.0);
        same(cents(&cost["list_cents"]), (input + 4.0 * output) / 10_000.0);
        assert_eq!((&cost["margin_percent"], &cost["total_cents"]), (&json!(5), &row["cost_cents"]));
        same(cents(&cost["list_cents"]) + cents(&cost["margin_cents"]), cents(&cost["total_cents"]));
        assert_eq!((&one["reserved_cents"], &one["refunds"]), (&json!(null), &json!([])), "no cap is above it");
    }
    let one = get(&gateway, key, &format!("/v1/requests/{}", video["request_id"].as_str().unwrap())).await;
    assert_eq!((&one["job_id"], &one["reservation_state"]), (&job["id"], &json!("settled")));
    assert_eq!(
        (&one["cost"]["lines"][0]["unit"], &one["cost"]["lines"][0]["quantity"]),
        (&json!("video_second"), &json!(2))
    );
    assert_eq!((&one["cost"]["list_cents"], &one["cost"]["margin_cents"]), (&json!(10), &json!(0.5)));
    assert_eq!((&one["cost"]["total_cents"], &one["reserved_cents"]), (&json!(10.5), &json!(10.5)));

    let tags = get(&gateway, key, "/v1/usage/by-tag").await;
    let lines = tags["data"].as_array().unwrap();
    assert_eq!((lines.len(), &tags["has_more"]), (2, &json!(false)));
    let untagged = json!({ "label": "(untagged)", "tag": null, "requests": 1, "cost_cents": 10.5, "cap_cents": null });
    assert_eq!(lines[0], untagged);
    assert_eq!((&lines[1]["label"], &lines[1]["tag"], &lines[1]["requests"]), (&json!("a"), &json!("a"), &json!(2)));
    same(cents(&lines[1]["cost_cents"]), cents(&plain["cost_cents"]) + cents(&stream["cost_cents"]));
    let balance = get(&gateway, key, "/v1/balance").await;
    same(cents(&balance["spent_cents"]), total);
    assert_eq!(
        (&balance["held_cents"], &balance["uncertain_cents"], &balance["cap_cents"]),
        (&json!(0), &json!(0), &json!(null))
    );
    assert_eq!((&balance["remaining_cents"], &balance["month"]), (&json!(null), &tags["month"]));
    let month = tags["month"].as_str().unwrap();
    assert_eq!(get(&gateway, key, &format!("/v1/usage/by-tag?month={month}")).await, tags);
    assert_eq!(get(&gateway, key, "/v1/usage/by-tag?month=2020-02").await["data"], json!([]));
    assert_eq!(get(&gateway, key, "/v1/usage/by-sub-account").await["data"], json!([]));

    // Filters, and pages.
    let listed = async |query: &str| get(&gateway, key, &format!("/v1/usage/recent?{query}")).await;
    assert_eq!(listed("tag=a").await["data"].as_array().unwrap().len(), 2);
    assert_eq!(listed("model=sandbox/video").await["data"], json!([video]));
    let first = listed("limit=2").await;
    assert_eq!((first["data"].as_array().unwrap(), &first["has_more"]), (&rows[..2].to_vec(), &json!(true)));
    let rest = listed(&format!("after={}", first["last_id"].as_str().unwrap())).await;
    assert_eq!((&rest["data"], &rest["has_more"]), (&json!([rows[2]]), &json!(false)));
    for (path, param) in [
        ("/v1/usage/recent?limit=1001", "limit"),
        ("/v1/usage/recent?after=req_x", "after"),
        ("/v1/usage/by-tag?month=2026-13", "month"),
        ("/v1/usage/by-sub-account?month=", "month"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (400, &json!(param)), "{path}");
    }
}

#[tokio::test]
async fn a_sub_account_sees_itself_only() {
    let gateway = Gateway::start("").await;
    let other = gateway.other_account().await;
    let make = async |name: &str, cap: Value| {
        let body = json!({ "name": name, "spend_cap_cents": cap, "default_tag": "shared" });
        let made = gateway.post("/v1/sub-accounts", &body).await.body;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    };
    let ((one, one_key), (two, two_key)) = (make("One", json!(50)).await, make("Two", json!(null)).await);
    let cap = gateway.post("/v1/budgets", &json!({ "tag": "shared", "monthly_cap_cents": 1000 })).await;
    assert_eq!(cap.status, 201, "{}", cap.text);
    let parents = chat(&gateway, &gateway.key, Some("own"), false).await.0;
    let of_one = video(&gateway, &one_key, None).await;
    let chat_of_one = chat(&gateway, &one_key, Some("x"), false).await.0;
    let of_two = video(&gateway, &two_key, None).await;
    recent(&gateway, &gateway.key, 4).await;
    let rows = recent(&gateway, &one_key, 2).await;
    assert!(rows.iter().all(|row| row["sub_account_id"] == json!(one)), "{rows:?}");
    let spent: f64 = rows.iter().map(|row| cents(&row["cost_cents"])).sum();

    // The parent sees all, line by line.
    let lines = get(&gateway, &gateway.key, "/v1/usage/by-sub-account").await["data"].clone();
    assert_eq!(lines.as_array().unwrap().len(), 2);
    assert_eq!(
        (&lines[0]["label"], &lines[0]["sub_account_id"], &lines[0]["requests"]),
        (&json!("One"), &json!(one), &json!(2))
    );
    assert_eq!((&lines[0]["cap_cents"], &lines[1]["cap_cents"]), (&json!(50), &json!(null)));
    same(cents(&lines[0]["cost_cents"]), spent);
    let tags = get(&gateway, &gateway.key, "/v1/usage/by-tag").await["data"].clone();
    assert_eq!(
        (&tags[0]["label"], &tags[0]["cost_cents"], &tags[0]["cap_cents"]),
        (&json!("shared"), &json!(21), &json!(1000))
    );
    let filtered = get(&gateway, &gateway.key, &format!("/v1/usage/recent?sub_account_id={two}")).await;
    assert_eq!(filtered["data"][0]["job_id"], of_two["id"]);

    // The sub-account sees itself.
    assert_eq!(get(&gateway, &one_key, "/v1/usage/by-sub-account").await["data"], json!([lines[0]]));
    let own = get(&gateway, &one_key, "/v1/usage/by-tag").await["data"].clone();
    let shared = json!({ "label": "shared", "tag": "shared", "requests": 1, "cost_cents": 10.5, "cap_cents": null });
    assert_eq!((own.as_array().unwrap().len(), &own[0], &own[1]["label"]), (2, &shared, &json!("x")));
    let theirs = format!("/v1/usage/recent?sub_account_id={two}");
    assert_eq!(get(&gateway, &one_key, &theirs).await["data"], json!([]));
    let balance = get(&gateway, &one_key, "/v1/balance").await;
    same(cents(&balance["spent_cents"]), spent);
    same(cents(&balance["remaining_cents"]), 50.0 - spent);
    let scopes: Vec<&str> =
        balance["scopes"].as_array().unwrap().iter().map(|scope| scope["scope"].as_str().unwrap()).collect();
    assert_eq!((scopes, &balance["scopes"][0]["id"]), (vec!["sub_account", "key"], &json!(one)));
    same(cents(&balance["scopes"][1]["spent_cents"]), spent);
    assert_eq!(get(&gateway, &gateway.key, "/v1/balance").await["scopes"][0]["scope"], "account");

    let path = format!("/v1/sub-accounts/{one}/usage");
    for key in [&gateway.key, &one_key] {
        let usage = get(&gateway, key, &format!("{path}?window=24h")).await;
        assert_eq!((&usage["object"], &usage["window"]), (&json!("sub_account_usage"), &json!("24h")));
        assert_eq!(usage["to"].as_i64().unwrap() - usage["from"].as_i64().unwrap(), 86_400);
        assert_eq!(usage["summary"]["requests"], 2);
        same(cents(&usage["summary"]["cost_cents"]), spent);
        assert!(cents(&usage["summary"]["input_tokens"]) > 0.0 && cents(&usage["summary"]["output_tokens"]) > 0.0);
        let video = json!({ "model_id": "sandbox/video", "requests": 1, "cost_cents": 10.5 });
        assert_eq!((&usage["by_model"][0], &usage["by_model"][1]["model_id"]), (&video, &json!("sandbox/chat")));
        let days = usage["by_day"].as_array().unwrap();
        assert_eq!(days.iter().map(|day| day["requests"].as_i64().unwrap()).sum::<i64>(), 2);
        same(days.iter().map(|day| cents(&day["cost_cents"])).sum(), spent);
        assert!(days.iter().all(|day| day["date"].as_str().unwrap().len() == 10));
    }
    for (key, path, status) in [
        (&two_key, path.clone(), 404),
        (&other, path.clone(), 404),
        (&gateway.key, "/v1/sub-accounts/sa_none/usage".to_owned(), 404),
        (&gateway.key, format!("{path}?window=91d"), 400),
    ] {
        let answer = ask(&gateway, key, Method::GET, &path, None, &Value::Null).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }

    // Somebody else's request is not there, like one that never was.
    let request_of = |job: &Value| job["request_id"].as_str().unwrap().to_owned();
    for (id, sees, does_not) in [
        (request_of(&of_one), vec![&one_key, &gateway.key], vec![&two_key, &other]),
        (chat_of_one, vec![&one_key, &gateway.key], vec![&two_key, &other]),
        (parents, vec![&gateway.key], vec![&one_key, &two_key, &other]),
    ] {
        let path = format!("/v1/requests/{id}");
        for key in sees {
            assert_eq!(get(&gateway, key, &path).await["request_id"], json!(id));
        }
        let mut messages = Vec::new();
        for (key, path) in does_not.iter().map(|key| (*key, path.as_str())).chain([(&other, "/v1/requests/req_none")]) {
            let answer = ask(&gateway, key, Method::GET, path, None, &Value::Null).await;
            assert_eq!((answer.status, &answer.body["error"]["type"]), (404, &json!("not_found")), "{path}");
            messages.push(answer.body["error"]["message"].clone());
        }
        messages.dedup();
        assert_eq!(messages.len(), 1, "{messages:?}");
    }
    for path in ["/v1/usage/recent", "/v1/usage/by-tag", "/v1/usage/by-sub-account"] {
        assert_eq!(get(&gateway, &other, path).await["data"], json!([]), "{path}");
    }
}

#[tokio::test]
async fn what_is_under_way_is_held() {
    let gateway = Gateway::start("").await;
    let made = gateway.post("/v1/keys", &json!({ "spend_cap_cents": 100 })).await.body;
    let key = made["key"].as_str().unwrap();
    let slow = json!({ "prompt": "[sandbox delay=60s]", "duration": 2 });
    let job = ask(&gateway, key, Method::POST, "/v1/videos/generations", None, &slow).await;
    let path = format!("/v1/requests/{}", job.header("x-request-id"));
    let seen = get(&gateway, key, &path).await;
    assert_eq!(
        (&seen["outcome"], &seen["status"], &seen["job_id"]),
        (&json!("running"), &json!(null), &job.body["id"])
    );
    assert_eq!((&seen["reserved_cents"], &seen["reservation_state"]), (&json!(10.5), &json!("held")));
    assert_eq!((&seen["cost"], &seen["model"]), (&json!(null), &json!("sandbox/video")));
    let balance = get(&gateway, key, "/v1/balance").await;
    let of_key = json!({
        "scope": "key", "id": made["id"], "cap_cents": 100, "spent_cents": 0, "held_cents": 10.5, "uncertain_cents": 0,
        "remaining_cents": 89.5,
    });
    assert_eq!((&balance["scopes"][1], &balance["remaining_cents"]), (&of_key, &json!(89.5)));
    assert_eq!((&balance["held_cents"], &balance["cap_cents"]), (&json!(10.5), &json!(null)));
    assert_eq!(get(&gateway, key, "/v1/usage/recent").await["data"], json!([]));
    let cancel = format!("/v1/jobs/{}", job.body["id"].as_str().unwrap());
    assert_eq!(ask(&gateway, key, Method::DELETE, &cancel, None, &Value::Null).await.status, 200);
    let ended = eventually("it is on record", SOON, || async {
        let seen = get(&gateway, key, &path).await;
        (seen["outcome"] != "running").then_some(seen)
    });
    let ended = ended.await.unwrap();
    assert_eq!(ended["cost_cents"], 0);
    assert_ne!(ended["reservation_state"], "held");
}
