//! The secret key of an installation and what is derived from it.
//!
//! `AIG_SECRET_KEY` is a comma list of `kid:base64(32 bytes)`. The first key writes, all of them read. Each purpose
//! has a key of its own, derived with HKDF-SHA256, so that a token made for one can never serve another.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};

use crate::id::random_bytes;

/// What a derived key is for. One HKDF label each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Hashing API keys before they are stored.
    KeyPepper,
    /// Signing file URLs.
    FileUrls,
    /// Encrypting secrets in the database.
    SecretsAtRest,
    /// Recognising the key without showing it.
    Fingerprint,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::KeyPepper => b"aigateway key pepper v1",
            Self::FileUrls => b"aigateway file urls v1",
            Self::SecretsAtRest => b"aigateway secrets at rest v1",
            Self::Fingerprint => b"aigateway fingerprint v1",
        }
    }
}

/// One secret key with its name.
#[derive(Clone)]
struct MasterKey {
    kid: String,
    bytes: [u8; 32],
}

impl MasterKey {
    #[expect(clippy::expect_used, reason = "HKDF-SHA256 always gives 32 bytes")]
    fn derive(&self, purpose: Purpose) -> [u8; 32] {
        let mut out = [0; 32];
        Hkdf::<Sha256>::new(None, &self.bytes)
            .expand(purpose.label(), &mut out)
            .expect("32 bytes is within HKDF's limit");
        out
    }
}

/// The secret keys of this installation. Never empty, never printed.
#[derive(Clone)]
pub struct KeyRing(Vec<MasterKey>);

/// Why a key list or a ciphertext was refused. Says nothing about the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The list is empty or malformed.
    #[error("the secret key must be a comma list of `kid:base64(32 bytes)`")]
    Malformed,
    /// Two entries share a kid.
    #[error("the secret key names a kid twice")]
    DuplicateKid,
    /// No key of that kid, or the ciphertext does not belong to this context.
    #[error("the stored secret cannot be read with the configured secret key")]
    Unreadable,
}

impl KeyRing {
    /// Reads `kid:base64(32 bytes)[,…]`.
    pub fn parse(text: &str) -> Result<Self, CryptoError> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for entry in text.trim().split(',') {
            let (kid, encoded) = entry.trim().split_once(':').ok_or(CryptoError::Malformed)?;
            let plain =
                !kid.is_empty() && kid.len() <= 32 && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let bytes = STANDARD.decode(encoded).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let (true, Some(bytes)) = (plain, bytes) else { return Err(CryptoError::Malformed) };
            if keys.iter().any(|key| key.kid == kid) {
                return Err(CryptoError::DuplicateKid);
            }
            keys.push(MasterKey { kid: kid.to_owned(), bytes });
        }
        Ok(Self(keys))
    }

    /// A new random key list in the form that [`KeyRing::parse`] reads.
    pub fn generate() -> String {
        format!("k1:{}", STANDARD.encode(random_bytes::<32>()))
    }

    /// The kid that new tokens and ciphertexts carry.
    pub fn writing_kid(&self) -> &str {
        &self.0[0].kid
    }

    /// The key for `purpose` under `kid`.
    pub fn derive(&self, kid: &str, purpose: Purpose) -> Option<[u8; 32]> {
        self.0.iter().find(|key| key.kid == kid).map(|key| key.derive(purpose))
    }

    /// The key for `purpose` that writes.
    pub fn derive_writing(&self, purpose: Purpose) -> [u8; 32] {
        self.0[0].derive(purpose)
    }

    /// `(kid, fingerprint)` of each key: what the database remembers, to refuse a process with other keys.
    pub fn fingerprints(&self) -> Vec<(String, String)> {
        let print = |key: &MasterKey| hex::encode(&Sha256::digest(key.derive(Purpose::Fingerprint))[..8]);
        self.0.iter().map(|key| (key.kid.clone(), print(key))).collect()
    }

    /// Encrypts `secret` for storage. `context` names the row (`webhook_secret|acc_…`): a ciphertext that is moved to
    /// another row does not open there.
    ///
    /// # Panics
    /// Never: AES-GCM refuses only what no memory holds.
    #[expect(clippy::expect_used, reason = "AES-GCM refuses only plaintexts of more than 64 GiB")]
    pub fn seal(&self, context: &str, secret: &str) -> String {
        let cipher = Aes256Gcm::new(&self.derive_writing(Purpose::SecretsAtRest).into());
        let nonce = random_bytes::<12>();
        let payload = Payload { msg: secret.as_bytes(), aad: context.as_bytes() };
        let sealed = cipher.encrypt(&nonce.into(), payload).expect("a secret is short");
        format!("v1.{}.{}", self.writing_kid(), STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Decrypts what [`KeyRing::seal`] made for the same `context`.
    pub fn open(&self, context: &str, sealed: &str) -> Result<String, CryptoError> {
        let mut parts = sealed.splitn(3, '.');
        let (Some("v1"), Some(kid), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(CryptoError::Unreadable);
        };
        let key = self.derive(kid, Purpose::SecretsAtRest).ok_or(CryptoError::Unreadable)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| CryptoError::Unreadable)?;
        let (nonce, sealed) = bytes.split_first_chunk::<12>().ok_or(CryptoError::Unreadable)?;
        let payload = Payload { msg: sealed, aad: context.as_bytes() };
        let plain = Aes256Gcm::new(&key.into()).decrypt(&(*nonce).into(), payload);
        plain.ok().and_then(|plain| String::from_utf8(plain).ok()).ok_or(CryptoError::Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_only_in_its_context_and_with_its_key() {
        let ring = KeyRing::parse(&KeyRing::generate()).unwrap();
        let sealed = ring.seal("webhook_secret|acc_1", "whsec_x");
        assert_eq!(ring.open("webhook_secret|acc_1", &sealed).as_deref(), Ok("whsec_x"));
        assert_eq!(ring.open("webhook_secret|acc_2", &sealed), Err(CryptoError::Unreadable));
        let other = KeyRing::parse(&KeyRing::generate()).unwrap();
        assert_eq!(other.open("webhook_secret|acc_1", &sealed), Err(CryptoError::Unreadable));
    }

    #[test]
    fn the_first_key_writes_and_all_read() {
        let old = KeyRing::generate();
        let new = KeyRing::generate().replace("k1:", "k2:");
        let sealed = KeyRing::parse(&old).unwrap().seal("c", "s");
        let both = KeyRing::parse(&format!("{new},{old}")).unwrap();
        assert_eq!(both.writing_kid(), "k2");
        assert_eq!(both.open("c", &sealed).as_deref(), Ok("s"));
    }

    #[test]
    fn bad_lists_are_refused() {
        let good = KeyRing::generate();
        for bad in ["", "k1", "k1:", "k1:AAAA", ":AAAA", &format!("{good},{good}")] {
            assert!(KeyRing::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn purposes_have_keys_of_their_own() {
        let ring = KeyRing::parse(&KeyRing::generate()).unwrap();
        assert_ne!(ring.derive_writing(Purpose::FileUrls), ring.derive_writing(Purpose::KeyPepper));
    }
}
