//! What is learned of a file while it passes: how long it is, its hash, its first bytes.

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::{FilesError, HEAD, Stored};

/// Measures chunks on their way in.
pub(crate) struct Intake {
    max_bytes: u64,
    bytes: u64,
    digest: Sha256,
    head: BytesMut,
}

impl Intake {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, bytes: 0, digest: Sha256::new(), head: BytesMut::with_capacity(HEAD) }
    }

    /// Takes the next chunk of the source into account, before it is written anywhere.
    pub(crate) fn take(&mut self, chunk: Result<Bytes, String>) -> Result<Bytes, FilesError> {
        let chunk = chunk.map_err(FilesError::Source)?;
        self.bytes += chunk.len() as u64;
        if self.bytes > self.max_bytes {
            return Err(FilesError::TooLarge(self.max_bytes));
        }
        let missing = HEAD.saturating_sub(self.head.len()).min(chunk.len());
        self.head.extend_from_slice(&chunk[..missing]);
        self.digest.update(&chunk);
        Ok(chunk)
    }

    /// What came, after the last chunk.
    pub(crate) fn stored(self) -> Stored {
        Stored { bytes: self.bytes, sha256: hex::encode(self.digest.finalize()), head: self.head.freeze() }
    }
}
