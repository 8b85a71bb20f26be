//! What the gateway signs: webhook deliveries and file URLs.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::crypto::{KeyRing, Purpose};
use crate::id::random_bytes;
use crate::{Millis, Secret};

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn hmac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// A new webhook secret: `whsec_` and 32 random bytes in base64, as Standard Webhooks wants it.
pub fn new_webhook_secret() -> Secret {
    Secret::new(format!("whsec_{}", STANDARD.encode(random_bytes::<32>())))
}

/// Why a delivery cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the webhook secret is not `whsec_` and at least 16 bytes in base64")]
pub struct BadSecret;

/// The headers of one webhook delivery.
///
/// Three families, so that every published verifier accepts the same delivery: `X-Gateway-Signature`
/// (the SDKs), `aig-timestamp` with `aig-signature` (the documentation), and Standard Webhooks. The first two key the
/// MAC with the secret's text over `<t>.<body>`, the third with the decoded bytes over `<id>.<t>.<body>`.
///
/// # Errors
/// [`BadSecret`] when the secret is empty or malformed: such a delivery could be forged, so it is not sent.
pub fn webhook_headers(
    secret: &Secret,
    event_id: &str,
    now: Millis,
    body: &[u8],
) -> Result<Vec<(&'static str, String)>, BadSecret> {
    let encoded = secret.expose().strip_prefix("whsec_").ok_or(BadSecret)?;
    let raw = STANDARD.decode(encoded).map_err(|_| BadSecret)?;
    if raw.len() < 16 {
        return Err(BadSecret);
    }
    let t = now.unix_seconds().to_string();
    let own = hex::encode(hmac(secret.expose().as_bytes(), &[t.as_bytes(), b".", body]).finalize().into_bytes());
    let standard = hmac(&raw, &[event_id.as_bytes(), b".", t.as_bytes(), b".", body]).finalize().into_bytes();
    Ok(vec![
        ("x-gateway-signature", format!("t={t},v1={own}")),
        ("aig-timestamp", t.clone()),
        ("aig-signature", own),
        ("webhook-id", event_id.to_owned()),
        ("webhook-timestamp", t),
        ("webhook-signature", format!("v1,{}", STANDARD.encode(standard))),
    ])
}

/// The query of a file URL that needs no key: `token`, `exp` (Unix seconds) and `k` (which key signed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToken {
    /// URL-safe base64 of the MAC.
    pub token: String,
    /// Unix seconds at which the link ends.
    pub exp: i64,
    /// The kid of the key that signed.
    pub k: String,
}

fn file_mac(key: &[u8], job: &str, file: &str, exp: i64, kid: &str) -> Hmac<Sha256> {
    hmac(key, &[format!("v1\nGET\n/v1/files/jobs/{job}/{file}\n{exp}\n{kid}").as_bytes()])
}

/// Signs a link to `file` of `job` that is good until `exp` (Unix seconds).
pub fn sign_file(ring: &KeyRing, job: &str, file: &str, exp: i64) -> FileToken {
    let kid = ring.writing_kid();
    let mac = file_mac(&ring.derive_writing(Purpose::FileUrls), job, file, exp, kid).finalize().into_bytes();
    FileToken { token: URL_SAFE_NO_PAD.encode(mac), exp, k: kid.to_owned() }
}

/// Whether `token` opens `file` of `job` at `now`. The MAC is checked, in constant time, before the expiry.
pub fn verify_file(ring: &KeyRing, job: &str, file: &str, token: &FileToken, now: Millis) -> bool {
    let (Some(key), Ok(mac)) = (ring.derive(&token.k, Purpose::FileUrls), URL_SAFE_NO_PAD.decode(&token.token)) else {
        return false;
    };
    file_mac(&key, job, file, token.exp, &token.k).verify_slice(&mac).is_ok() && now.unix_seconds() < token.exp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_covers_sent_bytes() {
        let secret = new_webhook_secret();
        let sign = |id: &str, t: i64, body: &[u8]| webhook_headers(&secret, id, Millis(t * 1000), body).unwrap();
        let base = sign("evt_1", 1_700_000_000, b"{}");
        assert_eq!(base, sign("evt_1", 1_700_000_000, b"{}"));
        // x-gateway-signature, aig-signature and webhook-signature all change with the body and with the time.
        for other in [sign("evt_1", 1_700_000_000, b"{ }"), sign("evt_1", 1_700_000_001, b"{}")] {
            for i in [0, 2, 5] {
                assert_ne!(base[i].1, other[i].1, "{}", base[i].0);
            }
        }
        assert_ne!(base[5].1, sign("evt_2", 1_700_000_000, b"{}")[5].1);
    }

    #[test]
    fn known_answers() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let headers = webhook_headers(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Millis(1_614_265_330_000),
            br#"{"test": 2432232314}"#,
        );
        // The example published with the Standard Webhooks libraries.
        assert_eq!(headers.unwrap()[5].1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_empty_or_short_secret_signs_nothing() {
        for bad in ["", "whsec_", "whsec_AAAA", "plain", "whsec_!!!"] {
            assert_eq!(webhook_headers(&Secret::new(bad), "evt_1", Millis(0), b"{}"), Err(BadSecret));
        }
    }

    #[test]
    fn a_file_token_opens_its_file_until_it_expires() {
        let ring = KeyRing::parse(&KeyRing::generate()).unwrap();
        let token = sign_file(&ring, "job_1", "video.mp4", 100);
        let ok = |job: &str, file: &str, token: &FileToken, now| verify_file(&ring, job, file, token, Millis(now));
        assert!(ok("job_1", "video.mp4", &token, 99_999));
        assert!(!ok("job_1", "video.mp4", &token, 100_000), "expired");
        assert!(!ok("job_2", "video.mp4", &token, 0), "another job");
        assert!(!ok("job_1", "music.wav", &token, 0), "another file");
        assert!(!ok("job_1", "video.mp4", &FileToken { exp: 101, ..token.clone() }, 0), "a later expiry");
        assert!(!ok("job_1", "video.mp4", &FileToken { k: "k9".into(), ..token.clone() }, 0), "an unknown key");
        for i in 0..token.token.len() {
            let mut bytes = token.token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let forged = FileToken { token: String::from_utf8(bytes).unwrap(), ..token.clone() };
            assert!(!ok("job_1", "video.mp4", &forged, 0), "position {i}");
        }
    }
}
