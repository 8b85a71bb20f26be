//! API keys: `sk-aig-<12 public id>_<43 secret><6 checksum>`.
//!
//! The public id finds the row and may be logged; the secret is stored only as an HMAC; the checksum lets scanners
//! and us tell a mistyped key from an unknown one without asking the database.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::Secret;
use crate::crypto::{KeyRing, Purpose};
use crate::id::random_bytes;

/// How every key begins.
pub const PREFIX: &str = "sk-aig-";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PUBLIC: usize = 12;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;

/// A key that was just made. The text is shown once and never stored.
#[derive(Debug)]
pub struct NewKey {
    /// The whole key, for its owner.
    pub text: Secret,
    /// The part that finds it.
    pub public_id: String,
    /// HMAC-SHA256 of the whole text under the pepper, hex.
    pub hash: String,
    /// Which secret key the pepper came from.
    pub kid: String,
}

/// Makes a new key.
pub fn generate(ring: &KeyRing) -> NewKey {
    let public_id = random_text(PUBLIC);
    let body = format!("{PREFIX}{public_id}_{}", random_text(SECRET));
    let text = format!("{body}{}", checksum(&body));
    let hash = hex::encode(mac(&ring.derive_writing(Purpose::KeyPepper), &text));
    NewKey { text: Secret::new(text), public_id, hash, kid: ring.writing_kid().to_owned() }
}

/// The public id of a well-formed key; `None` when the text cannot be one of ours.
pub fn public_id(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(PREFIX)?;
    let shaped = rest.len() == PUBLIC + 1 + SECRET + CHECKSUM && rest.is_ascii() && rest.as_bytes()[PUBLIC] == b'_';
    if !shaped {
        return None;
    }
    let (body, sum) = text.split_at(text.len() - CHECKSUM);
    (checksum(body) == sum).then(|| &rest[..PUBLIC])
}

/// Whether `text` is the key that was stored as `hash` under `kid`. Constant time in the hash.
pub fn verify(ring: &KeyRing, text: &str, hash: &str, kid: &str) -> bool {
    let (Some(pepper), Ok(stored)) = (ring.derive(kid, Purpose::KeyPepper), hex::decode(hash)) else { return false };
    mac(&pepper, text).ct_eq(&stored).into()
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `len` random base62 characters, each equally likely.
fn random_text(len: usize) -> String {
    let mut text = String::with_capacity(len);
    while text.len() < len {
        // 248 is the largest multiple of 62 that fits a byte; the rest would favour the first letters.
        let fair = random_bytes::<64>().into_iter().filter(|byte| *byte < 248);
        text.extend(fair.take(len - text.len()).map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
    }
    text
}

fn checksum(body: &str) -> String {
    let mut value = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(value % 62) as usize];
        value /= 62;
    }
    digits.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> KeyRing {
        KeyRing::parse(&KeyRing::generate()).unwrap()
    }

    #[test]
    fn a_key_finds_and_verifies_itself_and_nothing_else() {
        let ring = ring();
        let (key, other) = (generate(&ring), generate(&ring));
        assert_eq!(public_id(key.text.expose()), Some(key.public_id.as_str()));
        assert!(verify(&ring, key.text.expose(), &key.hash, &key.kid));
        assert!(!verify(&ring, other.text.expose(), &key.hash, &key.kid));
        assert!(!verify(&self::ring(), key.text.expose(), &key.hash, &key.kid));
        assert!(!verify(&ring, key.text.expose(), "", &key.kid));
    }

    #[test]
    fn any_changed_character_breaks_the_checksum() {
        let text = generate(&ring()).text.expose().to_owned();
        for i in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[i] = if bytes[i] == b'x' { b'y' } else { b'x' };
            assert_eq!(public_id(std::str::from_utf8(&bytes).unwrap()), None, "position {i}");
        }
        for bad in ["", "sk-aig-", "sk-aig-é", &text[1..], &format!("{text}0")] {
            assert_eq!(public_id(bad), None);
        }
    }
}
