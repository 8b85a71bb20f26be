//! What a body may be: each bound, and what is said when it is passed.
use futures_util::stream;

use super::*;

const LIMITS: BodyLimits = BodyLimits { bytes: 10, total: Duration::from_secs(30) };

fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value.parse().unwrap());
    }
    headers
}

fn chunks(parts: &[&'static str]) -> Body {
    let parts: Vec<_> = parts.iter().map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes()))).collect();
    Body::from_stream(stream::iter(parts))
}

async fn kind(pairs: &[(http::HeaderName, &str)], body: Body) -> Result<Bytes, ErrorKind> {
    read_json(&headers(pairs), body, LIMITS).await.map_err(|error| error.kind)
}

#[tokio::test]
async fn a_body_within_the_limit_arrives_whole() {
    for parts in [&["0123456789"][..], &["01", "", "2345", "6789"], &[]] {
        assert_eq!(kind(&[], chunks(parts)).await.unwrap(), parts.concat());
    }
}

#[tokio::test]
async fn too_large_is_413_whether_announced_or_not() {
    assert_eq!(kind(&[], chunks(&["0123456789", "x"])).await, Err(ErrorKind::PayloadTooLarge));
    // A body that never comes: it must not be waited for.
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(kind(&[(CONTENT_LENGTH, "11")], never).await, Err(ErrorKind::PayloadTooLarge));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_408() {
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(kind(&[], never).await, Err(ErrorKind::RequestTimeout));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400() {
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
    assert_eq!(kind(&[], Body::from_stream(broken)).await, Err(ErrorKind::InvalidRequest));
}

#[tokio::test]
async fn only_plain_json_passes() {
    for good in
        ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.api+json", "application/json;x=1"]
    {
        assert!(kind(&[(CONTENT_TYPE, good)], Body::empty()).await.is_ok(), "{good}");
    }
    assert!(kind(&[(CONTENT_ENCODING, "identity")], Body::empty()).await.is_ok());
    let two = [(CONTENT_TYPE, "application/json"), (CONTENT_TYPE, "application/json")];
    assert_eq!(kind(&two, Body::empty()).await, Err(ErrorKind::UnsupportedMediaType));
    for bad in
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "*/*", "", "json"]
    {
        assert_eq!(kind(&[(CONTENT_TYPE, bad)], Body::empty()).await, Err(ErrorKind::UnsupportedMediaType), "{bad}");
    }
    for bad in ["gzip", "identity, gzip", "br"] {
        assert_eq!(
            kind(&[(CONTENT_ENCODING, bad)], Body::empty()).await,
            Err(ErrorKind::UnsupportedMediaType),
            "{bad}"
        );
    }
}
