//! Request headers of our own: the cost label and the idempotency key. Tests at the end.

use aig_domain::job_request::check_tag;
use aig_domain::{Error, ErrorKind};
use http::HeaderMap;

const TAG: &str = "x-aig-tag";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// The label of the request's cost; an empty header is none.
///
/// # Errors
/// A 400 when it is not UTF-8, longer than [`aig_domain::job_request::MAX_TAG`] characters, or given twice.
pub fn tag(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(tag) = single(headers, TAG)? else { return Ok(None) };
    check_tag(tag)?;
    Ok(Some(tag.to_owned()))
}

/// The idempotency key as it was sent.
///
/// # Errors
/// A 400 when it is empty, longer than 255 characters, not of visible ASCII characters, or given twice.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        return Ok(None);
    }
    match single(headers, IDEMPOTENCY_KEY)? {
        Some(key) if key.len() <= MAX_IDEMPOTENCY_KEY && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(invalid("Idempotency-Key must be 1 to 255 visible ASCII characters. Nothing was done.")),
    }
}

/// The one value of `name`, trimmed; an empty one is none.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid(format!("The header {name} is given more than once. Nothing was done.")));
    }
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| invalid(format!("The header {name} is not UTF-8. Nothing was done.")))?.trim();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn tags() {
        assert_eq!(tag(&HeaderMap::new()).unwrap(), None);
        assert_eq!(tag(&with(TAG, &[b" "])).unwrap(), None);
        assert_eq!(tag(&with(TAG, &["équipe/a".as_bytes()])).unwrap().as_deref(), Some("équipe/a"));
        assert_eq!(tag(&with(TAG, &["é".repeat(64).as_bytes()])).unwrap(), Some("é".repeat(64)));
        for bad in [with(TAG, &[b"\xff"]), with(TAG, &[b"a", b"b"]), with(TAG, &[&[b'a'; 65]])] {
            assert_eq!(tag(&bad).unwrap_err().kind, ErrorKind::InvalidRequest, "{bad:?}");
        }
    }

    #[test]
    fn idempotency_keys() {
        let key = |value: &[u8]| idempotency_key(&with(IDEMPOTENCY_KEY, &[value]));
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(key(b"order-7").unwrap().as_deref(), Some("order-7"));
        assert!(key(&[b'a'; 255]).is_ok());
        for bad in [&b""[..], b" ", b"a b", "é".as_bytes(), b"\xff", &[b'a'; 256]] {
            assert!(key(bad).is_err(), "{bad:?}");
        }
        assert!(idempotency_key(&with(IDEMPOTENCY_KEY, &[b"a", b"b"])).is_err());
    }
}
