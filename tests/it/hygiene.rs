//! What holds for every answer.

use aig_testkit::WebhookReceiver;
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, SOON};

#[tokio::test]
async fn every_answer_has_request_id() {
    let gateway = Gateway::start("").await;
    let document: Value = gateway.get("/openapi.json").await.body;
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{job_id}", "job_x").replace("{filename}", "f").replace("{id}", "x/y");
            for with_key in [true, false] {
                let method: Method = method.to_uppercase().parse().unwrap();
                let request = if with_key {
                    gateway.request(method.clone(), &path)
                } else {
                    gateway.anonymous(method.clone(), &format!("{}{path}", gateway.url))
                };
                let answer = Answer::of(request.send().await.unwrap()).await;
                assert!(answer.header("x-request-id").starts_with("req_"), "{method} {path}");
                assert!(answer.status < 500, "{method} {path}: {}", answer.text);
                if answer.status >= 400 {
                    assert_eq!(answer.body["error"]["request_id"], answer.header("x-request-id"), "{method} {path}");
                    assert_eq!(answer.body["error"]["code"], answer.status, "{method} {path}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 30, "{seen}");
    for (method, path, status) in [
        (Method::GET, "/nope", 404),
        (Method::PUT, "/v1/models", 405),
        (Method::GET, "/v1/jobs/%ff", 400),
        (Method::GET, "/v1/chat/completions", 405),
    ] {
        let answer = Answer::of(gateway.request(method, path).send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.header("x-request-id").starts_with("req_"), "{path}");
    }
}

#[tokio::test]
async fn tenant_sees_own() {
    let gateway = Gateway::start("").await;
    let (mine, theirs) = (gateway.video("x").await, gateway.other_account().await);
    let done = gateway.wait(&mine).await;
    let slow = gateway.video("[sandbox delay=60s]").await;
    let document: Value = gateway.get("/openapi.json").await.body;
    let mut tried = 0;
    for (pattern, methods) in document["paths"].as_object().unwrap() {
        if !pattern.contains("job") || !pattern.contains('{') || pattern.ends_with("/public") {
            continue; // A public link carries its own right: `links_work_without_a_key_until_they_expire…`.
        }
        for method in methods.as_object().unwrap().keys() {
            for id in [&mine, &slow, &"job_00000000000000000000000000".to_owned()] {
                let path = pattern.replace("{job_id}", id).replace("{id}", id).replace("{filename}", "video.mp4");
                let method: Method = method.to_uppercase().parse().unwrap();
                let url = format!("{}{path}", gateway.url);
                let request = gateway.anonymous(method.clone(), &url).bearer_auth(&theirs);
                let answer = Answer::of(request.send().await.unwrap()).await;
                assert_eq!(
                    (answer.status, &answer.body["error"]["type"]),
                    (404, &json!("not_found")),
                    "{method} {path}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 15, "{tried}");
    let list = gateway.anonymous(Method::GET, &format!("{}/v1/jobs", gateway.url)).bearer_auth(&theirs);
    assert_eq!(Answer::of(list.send().await.unwrap()).await.body["data"], json!([]));
    let after = gateway.anonymous(Method::GET, &format!("{}/v1/jobs?after={mine}", gateway.url)).bearer_auth(&theirs);
    assert_eq!(after.send().await.unwrap().status(), 400);
    assert_eq!(gateway.job(&mine).await["result"]["sha256"], done["result"]["sha256"]);
    assert_eq!(gateway.job(&slow).await["error_code"], json!(null), "nobody else cancelled it");
}

#[tokio::test]
async fn keys_are_checked_before_anything_else() {
    let gateway = Gateway::start("").await;
    let url = format!("{}/v1/jobs", gateway.url);
    let mut wrong = gateway.key.clone();
    wrong.replace_range(10..11, if &wrong[10..11] == "x" { "y" } else { "x" });
    for header in [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some(format!("Bearer {wrong}")),
        Some(format!("Basic {}", gateway.key)),
    ] {
        let mut request = gateway.anonymous(Method::GET, &url);
        if let Some(header) = &header {
            request = request.header("authorization", header);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(
            (answer.status, answer.body["error"]["type"].as_str()),
            (401, Some("authentication_error")),
            "{header:?}"
        );
        assert_eq!(answer.header("x-should-retry"), "false");
    }
}

#[tokio::test]
async fn bounded_everywhere_bodies_are() {
    let gateway = Gateway::start("[server]\nmax_job_body_bytes = 2000\n").await;
    let large = json!({ "prompt": "x".repeat(3000) });
    let answer = gateway.post("/v1/videos/generations", &large).await;
    assert_eq!((answer.status, answer.body["error"]["type"].as_str()), (413, Some("payload_too_large")));
    let deep = format!("{{\"prompt\":\"x\",\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let post = |body: String| {
        gateway.request(Method::POST, "/v1/videos/generations").header("content-type", "application/json").body(body)
    };
    assert_eq!(post(deep).send().await.unwrap().status(), 400);
    assert_eq!(post("{\"prompt\":\"\\u0000\"}".into()).send().await.unwrap().status(), 400);
    let zipped = post("{}".into()).header("content-encoding", "gzip").send().await.unwrap();
    assert_eq!(zipped.status(), 415);
    let long = gateway.get(&format!("/v1/jobs?after={}", "x".repeat(9000))).await;
    assert_eq!(long.status, 414);
    assert_eq!(post("{}".into()).header("x-aig-tag", "t".repeat(65)).send().await.unwrap().status(), 400);
    assert_eq!(
        post("{\"prompt\":\"x\"}".into()).header("idempotency-key", "k".repeat(256)).send().await.unwrap().status(),
        400
    );
}

#[tokio::test]
async fn secrets_never_logged() {
    let receiver = WebhookReceiver::start().await.unwrap();
    let toml =
        "[providers.up]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:1/v1'\napi_key_env = 'UP_KEY'\nmodels = '*'\n";
    let gateway = Gateway::start_with(toml, &[("UP_KEY", "sk-upstream-hidden-1234")]).await;
    let secret = gateway.get("/v1/webhook-secret").await.body["secret"].as_str().unwrap().to_owned();
    let body = json!({ "prompt": "a very private prompt", "webhook_url": receiver.url("/hook?token=hidden-query") });
    let id = gateway.submit("/v1/videos/generations", &body).await;
    gateway.wait(&id).await;
    receiver.wait_for("/hook", 1, SOON).await.unwrap();
    let link = gateway.job(&id).await["result_url"].as_str().unwrap().to_owned();
    gateway.anonymous(Method::GET, &link).send().await.unwrap();
    let token = link.split("token=").nth(1).unwrap().split('&').next().unwrap();
    for model in ["sandbox/chat", "up/m"] {
        let chat = json!({ "model": model, "messages": [{ "role": "user", "content": "a very private prompt" }] });
        gateway.post("/v1/chat/completions", &chat).await;
    }
    let (log, admin) = (gateway.log(), gateway.file("admin-key"));
    assert!(log.contains(&id), "the log does speak of the job");
    let hidden = [&gateway.key, &admin, &secret, token, "sk-upstream-hidden-1234", "private prompt", "hidden-query"];
    for secret in hidden {
        assert!(!log.contains(secret), "`{secret}` is in the log");
    }
    assert!(!log.contains(gateway.file("secret-key").trim().split(':').nth(1).unwrap()));
}

#[tokio::test]
async fn operators_pages_answer() {
    let gateway = Gateway::start("").await;
    assert_eq!(gateway.get("/healthz").await.status, 200);
    assert!(gateway.get("/metrics").await.text.contains("aig_build_info"));
    assert_eq!(gateway.get("/readyz").await.body["status"], "ready");
    gateway.wait(&gateway.video("x").await).await;
    let metrics = gateway.metrics().await;
    assert!(
        metrics.contains("aig_jobs_ended_total{modality=\"video\",status=\"completed\",error_code=\"none\"} 1"),
        "{metrics}"
    );
    assert_eq!(gateway.get("/openapi.json").await.body["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
}
