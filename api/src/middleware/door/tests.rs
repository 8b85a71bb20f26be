//! The door in front of a router that answers, fails and panics.

use aig_domain::clock::SystemClock;
use http::StatusCode;
use http_body_util::BodyExt as _;

use super::*;

/// Answers by the path: `/ok`, `/fail`, `/panic`.
async fn by_path(request: Request<Body>) -> Result<Response, ApiError> {
    match request.uri().path() {
        "/ok" => Ok(Response::new(Body::from("fine"))),
        "/panic" => panic!("a bug with a hunter2 in it"),
        _ => Err(Error::invalid("x", "`x` is wrong.").into()),
    }
}

fn door() -> Door {
    Door::new(Router::new().fallback(by_path), Arc::new(SystemClock))
}

async fn get(door: Door, uri: &str) -> (StatusCode, http::HeaderMap, String) {
    let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
    let (parts, body) = door.answer(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_answer_has_request_id() {
    let long = format!("/{}", "x".repeat(9000));
    let mut seen = std::collections::HashSet::new();
    for (uri, status) in [("/ok", 200), ("/fail", 400), ("/panic", 500), ("/%ff", 400), (long.as_str(), 414)] {
        let (got, headers, body) = get(door(), uri).await;
        assert_eq!(got.as_u16(), status, "{uri}");
        let id = headers["x-request-id"].to_str().unwrap();
        assert!(id.starts_with("req_") && seen.insert(id.to_owned()), "{uri}: {id}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        if status >= 400 {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["error"]["request_id"], id);
            assert_eq!(body["error"]["code"], status);
        }
    }
}

#[tokio::test]
async fn a_panic_is_one_500_that_tells_nothing() {
    let door = door();
    let (status, _, body) = get(door.clone(), "/panic").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!body.contains("hunter2"), "{body}");
    assert_eq!(get(door, "/ok").await.0, StatusCode::OK);
}

#[test]
fn paths_are_utf8_in_correct_encoding() {
    for good in ["/", "/v1/models/openai%2Fgpt-5.4", "/%c3%a9", "/v1/%20x"] {
        assert!(path_is_clean(good), "{good}");
    }
    for bad in ["/%", "/%2", "/%zz", "/%00", "/%ff", "/%c3", "/%c0%af", "/%ed%a0%80"] {
        assert!(!path_is_clean(bad), "{bad}");
    }
}
