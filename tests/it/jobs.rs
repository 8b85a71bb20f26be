//! Jobs on the sandbox, as their owners see them.

use reqwest::Method;
use serde_json::json;

use crate::gateway::{Answer, Gateway};

#[tokio::test]
async fn each_kind_of_job_makes_its_file() {
    let gateway = Gateway::start("").await;
    for (path, model, modality, file, cents) in [
        ("/v1/videos/generations", "sandbox/video", "video", "video.mp4", json!(21)),
        ("/v1/audio/music", "sandbox/music", "music", "music.wav", json!(8.4)),
        ("/v1/3d/generations", "sandbox/3d", "3d", "model.glb", json!(10.5)),
    ] {
        let body = json!({ "prompt": "a lighthouse", "metadata": { "order": 7 } });
        let accepted =
            gateway.request(Method::POST, path).header("x-aig-tag", "team-a").json(&body).send().await.unwrap();
        let accepted = Answer::of(accepted).await;
        assert_eq!(accepted.status, 202);
        assert_eq!(accepted.body["status"], "queued");
        assert_eq!(accepted.body["request_id"], accepted.header("x-request-id"));
        let job = gateway.wait(accepted.body["id"].as_str().unwrap()).await;
        assert_eq!(
            (&job["status"], &job["model"], &job["modality"]),
            (&json!("completed"), &json!(model), &json!(modality))
        );
        assert_eq!((&job["tag"], &job["metadata"]["order"]), (&json!("team-a"), &json!(7)));
        assert_eq!(job["result"]["filename"], file);
        assert_eq!(job["result_url"], job["result"]["file_url"]);
        // Seconds by default, or one mesh, at list price and five per cent.
        assert_eq!((&job["cost_cents"], &job["usage"]["cost_cents"]), (&cents, &cents));
        assert_eq!(job["progress"], 100);
    }
}

#[tokio::test]
async fn a_failed_job_says_why_and_costs_nothing() {
    let gateway = Gateway::start("[models.'sandbox/video']\ndeadline_seconds = 0.6\n").await;
    for (directive, code) in [
        ("fail=provider_error", "provider_error"),
        ("fail=content_refused", "content_refused"),
        ("fail=unknown_outcome", "provider_outcome_unknown"),
    ] {
        let body = json!({ "prompt": format!("[sandbox {directive}]"), "duration": 1 });
        let job = gateway.wait(&gateway.submit("/v1/audio/music", &body).await).await;
        assert_eq!((&job["status"], &job["error_code"]), (&json!("failed"), &json!(code)), "{job}");
        assert_eq!(job["error"], job["error_detail"]["message"]);
        assert_eq!((&job["cost_cents"], &job["result_url"]), (&json!(0), &json!(null)));
        assert!(job["completed_at"].is_i64() && job["cancelled_at"].is_null());
    }
    let late = gateway.wait(&gateway.video("[sandbox fail=timeout]").await).await;
    assert_eq!((&late["error_code"], &late["cost_cents"]), (&json!("deadline_exceeded"), &json!(0)));
}

#[tokio::test]
async fn a_submit_that_fails_for_a_while_works_in_the_end() {
    let gateway = Gateway::start("").await;
    let job = gateway.wait(&gateway.video("[sandbox fail_times=2]").await).await;
    assert_eq!(job["status"], "completed", "{job}");
}

#[tokio::test]
async fn cancelled_jobs_read_failed_by_both_routes_and_stay_so() {
    let gateway = Gateway::start("").await;
    for (method, suffix) in [(Method::DELETE, ""), (Method::POST, "/cancel")] {
        let id = gateway.video("[sandbox delay=60s]").await;
        let path = format!("/v1/jobs/{id}{suffix}");
        let cancelled = Answer::of(gateway.request(method.clone(), &path).send().await.unwrap()).await;
        assert_eq!(cancelled.status, 200);
        let job = &cancelled.body;
        assert_eq!(
            (&job["status"], &job["error_code"], &job["cost_cents"]),
            (&json!("failed"), &json!("cancelled"), &json!(0))
        );
        assert!(job["cancelled_at"].is_i64());
        let again = Answer::of(gateway.request(method, &path).send().await.unwrap()).await;
        assert_eq!((again.status, &again.body), (200, job));
    }
    let done = gateway.video("x").await;
    gateway.wait(&done).await;
    let late = Answer::of(gateway.request(Method::DELETE, &format!("/v1/jobs/{done}")).send().await.unwrap()).await;
    assert_eq!((late.status, &late.body["status"]), (200, &json!("completed")));
}

#[tokio::test]
async fn an_idempotency_key_is_one_job() {
    let gateway = Gateway::start("").await;
    let send = async |path: &str, body: serde_json::Value| {
        let request = gateway.request(Method::POST, path).header("idempotency-key", "order-7").json(&body);
        Answer::of(request.send().await.unwrap()).await
    };
    let first = send("/v1/videos/generations", json!({ "prompt": "x" })).await;
    gateway.wait(first.body["id"].as_str().unwrap()).await;
    let again = send("/v1/videos/generations", json!({ "prompt": "x" })).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
    assert_eq!(
        (&again.body["id"], &again.body["status"]),
        (&first.body["id"], &json!("completed")),
        "the record as it stands"
    );
    let other = send("/v1/videos/generations", json!({ "prompt": "y" })).await;
    assert_eq!((other.status, &other.body["error"]["type"]), (422, &json!("idempotency_mismatch")));
    let elsewhere = send("/v1/audio/music", json!({ "prompt": "x" })).await;
    assert_eq!(elsewhere.status, 202, "another route is another scope");
    assert_ne!(elsewhere.body["id"], first.body["id"]);
}

#[tokio::test]
async fn lists_go_by_cursor_and_status() {
    let gateway = Gateway::start("").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = gateway.video("x").await;
        gateway.wait(&id).await;
        ids.push(id);
    }
    let failed = gateway.video("[sandbox fail=provider_error]").await;
    gateway.wait(&failed).await;
    let page = gateway.get("/v1/jobs?status=completed&limit=3").await.body;
    assert_eq!((&page["object"], &page["has_more"]), (&json!("list"), &json!(true)));
    assert_eq!(page["first_id"], *ids.last().unwrap());
    let rest = gateway
        .get(&format!("/v1/jobs?status=completed&limit=3&after={}", page["last_id"].as_str().unwrap()))
        .await
        .body;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (2, &json!(false)));
    assert_eq!(gateway.get("/v1/jobs?status=failed").await.body["data"][0]["id"], failed);
    for bad in ["/v1/jobs?limit=0", "/v1/jobs?limit=x", "/v1/jobs?status=what", "/v1/jobs?limit=101"] {
        assert_eq!(gateway.get(bad).await.status, 400, "{bad}");
    }
    assert_eq!(gateway.get("/v1/jobs/job_nope").await.status, 404);
}

#[tokio::test]
async fn what_the_shipped_clients_send_is_understood() {
    let gateway = Gateway::start("").await;
    for body in [
        json!({ "prompt": 42 }),
        json!({ "prompt": "x", "duration": "2", "unknown": { "deep": [1] } }),
        json!({ "prompt": "x", "model": "auto/video" }),
        json!({ "prompt": "x", "aspect-ratio": "9:16" }),
        json!({ "prompt": "x", "aspectRatio": "1:1" }),
    ] {
        let job = gateway.wait(&gateway.submit("/v1/videos/generations", &body).await).await;
        assert_eq!(job["status"], "completed", "{body}");
    }
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({ "prompt": "x", "duration": 61 }), "duration"),
        (json!({ "prompt": "x", "duration": 0.1 }), "duration"),
        (json!({ "prompt": "x", "model": "sandbox/chat" }), "model"),
        (json!({ "prompt": "x", "webhook_url": "https://10.0.0.1/" }), "webhook_url"),
        (json!({ "prompt": "x", "webhook_url": "not a url" }), "webhook_url"),
    ] {
        let refused = gateway.post("/v1/videos/generations", &body).await;
        assert_eq!((refused.status, &refused.body["error"]["param"]), (400, &json!(param)), "{body}");
    }
    let unknown = gateway.post("/v1/videos/generations", &json!({ "prompt": "x", "model": "video" })).await;
    assert_eq!((unknown.status, &unknown.body["error"]["type"]), (404, &json!("model_not_found")));
    assert!(unknown.body["error"]["message"].as_str().unwrap().contains("sandbox/video"));
}
