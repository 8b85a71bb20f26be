//! Files as they are served: whole, in part, not changed, and never as a page.
use super::*;

fn result(filename: &str, content_type: &str) -> JobResult {
    JobResult {
        filename: filename.into(),
        content_type: content_type.into(),
        bytes: 10,
        sha256: "abc".into(),
        duration: None,
        resolution: None,
        file_key: "jobs/job_1/1-x".into(),
    }
}

fn asked(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
}

#[test]
fn a_range_holds_only_for_the_file_it_was_made_for() {
    let range = (RANGE, "bytes=2-5");
    assert_eq!(wanted(&asked(std::slice::from_ref(&range)), "abc", 10), Part::Bytes(2..6));
    assert_eq!(wanted(&asked(&[range.clone(), (IF_RANGE, "\"abc\"")]), "abc", 10), Part::Bytes(2..6));
    for other in ["\"abd\"", "W/\"abc\"", "Tue, 24 Nov 2026 05:00:00 GMT"] {
        assert_eq!(wanted(&asked(&[range.clone(), (IF_RANGE, other)]), "abc", 10), Part::Whole, "{other}");
    }
}

#[test]
fn only_a_condition_that_names_the_file_is_304() {
    for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
        assert!(is_known(&asked(&[(IF_NONE_MATCH, known)]), "abc"), "{known}");
    }
    assert!(!is_known(&asked(&[(IF_NONE_MATCH, "\"x\"")]), "abc"));
    assert!(!is_known(&asked(&[]), "abc"));
}

#[test]
fn nothing_served_can_act_as_a_page() {
    for (content_type, start) in [
        ("video/mp4", "inline"),
        ("audio/wav", "inline"),
        ("image/png", "inline"),
        ("image/svg+xml", "attachment"),
        ("model/gltf-binary", "attachment"),
        ("text/html", "attachment"),
        ("application/octet-stream", "attachment"),
    ] {
        let headers = file_headers(&result("a.bin", content_type), 300).unwrap();
        assert!(headers[CONTENT_DISPOSITION].to_str().unwrap().starts_with(start), "{content_type}");
        assert!(headers[CONTENT_SECURITY_POLICY].to_str().unwrap().ends_with("sandbox"));
    }
}

#[test]
fn names_cannot_break_out_of_their_header() {
    let name = disposition(&result("a\"; x=\r\né.mp4", "video/mp4"));
    assert_eq!(name, "inline; filename=\"a___x_____.mp4\"");
    assert!(file_headers(&result("a", "video/mp4\r\nx: y"), 300).is_err());
}

#[test]
fn the_416_tells_the_length() {
    let response = unsatisfiable(10);
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(response.headers()[CONTENT_RANGE], "bytes */10");
}
