//! Reading a request's body: bounded in size and time, JSON only, not compressed. Tests: `body/tests.rs`.

use std::time::Duration;

use aig_domain::{Error, ErrorKind};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;

/// How much of a body a route reads, and how long it waits for it.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The largest body, in bytes.
    pub bytes: usize,
    /// How long the whole of it may take.
    pub total: Duration,
}

/// The bytes of a JSON body; that they are JSON is for the caller to see.
///
/// # Errors
/// 415 for another type or a compressed body, 413 when it is too large (the rest is not read), 408 when it takes too
/// long, 400 when it breaks off.
pub async fn read_json(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Bytes, Error> {
    check_encoding(headers)?;
    check_type(headers)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > limits.bytes)) {
        return Err(too_large(limits.bytes));
    }
    match tokio::time::timeout(limits.total, collect(body, limits.bytes)).await {
        Ok(read) => read,
        Err(_late) => Err(Error::new(
            ErrorKind::RequestTimeout,
            format!("The request body did not arrive within {} seconds. Nothing was done.", limits.total.as_secs()),
        )),
    }
}

async fn collect(mut body: Body, max: usize) -> Result<Bytes, Error> {
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broken_off())?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(too_large(max));
        }
        if first.is_empty() {
            // Most bodies are one frame, and then nothing is copied.
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

fn too_large(max: usize) -> Error {
    let message =
        format!("The request body is larger than the {} kB that this route takes. Nothing was done.", max / 1024);
    Error::new(ErrorKind::PayloadTooLarge, message)
}

fn broken_off() -> Error {
    Error::new(ErrorKind::InvalidRequest, "The request body broke off or is badly framed. Nothing was done.")
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let message = "Compressed request bodies are not accepted. Send it again without Content-Encoding.";
    Err(Error::new(ErrorKind::UnsupportedMediaType, message))
}

fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let fits = match (types.next(), types.next()) {
        (None, _) => true,
        (Some(one), None) => one.to_str().is_ok_and(is_json),
        (Some(_), Some(_)) => false,
    };
    if fits {
        return Ok(());
    }
    let message = "The request body must be JSON in UTF-8. Send it again with `Content-Type: application/json`.";
    Err(Error::new(ErrorKind::UnsupportedMediaType, message))
}

/// `application/json` and `application/…+json`, in UTF-8 if a charset is named.
fn is_json(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests;
