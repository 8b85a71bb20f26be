//! Result files: stored durably under a key, read by range.
//!
//! [`Files`] is the seam; [`Directory`] is the embedded adapter, [`S3Files`] the distributed one. A file is durable when [`Files::put`] returns, which is
//! before any row says so.

mod directory;
mod intake;
mod key;
mod s3;
mod sniff;

use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

pub use directory::Directory;
pub use key::{FileKey, safe_filename};
pub use s3::{S3Config, S3Files};
pub use sniff::{HEAD, safe_content_type};

/// Bytes on their way in. The error is whatever the source says went wrong.
pub type Incoming = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;
/// Bytes on their way out.
pub type Outgoing = Pin<Box<dyn Stream<Item = Result<Bytes, FilesError>> + Send>>;

/// What [`Files::put`] stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Size.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
    /// The first [`HEAD`] bytes, or fewer: what the file really is shows there.
    pub head: Bytes,
}

/// Why a file was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The key could leave the store.
    #[error("`{0}` is not a file key")]
    BadKey(String),
    /// More bytes came than allowed; nothing was kept.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    /// The source broke; nothing was kept.
    #[error("the source of the file broke: {0}")]
    Source(String),
    /// The disk failed or is full; nothing was kept.
    #[error("the file store failed: {0}")]
    Io(#[from] std::io::Error),
    /// The object store failed, refused, or does not answer; nothing was kept. Holds no secret.
    #[error("the file store failed: {0}")]
    Store(String),
    /// The store is set up wrongly. Holds no secret.
    #[error("{0}")]
    Config(String),
}

/// A store of files.
#[async_trait]
pub trait Files: Send + Sync {
    /// Stores at most `max_bytes` under `key`, replacing what was there in one step. Durable when it returns; on an error
    /// nothing is left.
    async fn put(&self, key: &str, body: Incoming, max_bytes: u64) -> Result<Stored, FilesError>;

    /// The size of a file; `None` when there is none.
    async fn size(&self, key: &str) -> Result<Option<u64>, FilesError>;

    /// The bytes of `range`, which must lie inside the file.
    async fn read(&self, key: &str, range: Range<u64>) -> Result<Outgoing, FilesError>;

    /// Deletes a file; one that is not there is deleted already.
    async fn delete(&self, key: &str) -> Result<(), FilesError>;

    /// Whether files can be stored now.
    async fn check(&self) -> Result<(), FilesError>;
}
