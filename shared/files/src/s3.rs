//! The distributed adapter: any S3 API.
//!
//! A file is visible whole or not at all: S3 shows an object when its put or its multipart upload is complete, and answers
//! after it is durable. A put that fails, or is given up by its caller, makes S3 forget the parts it has; if the process dies first,
//! only the bucket can: give it a lifecycle rule that aborts incomplete uploads after a day. When S3 does not answer the
//! completion of an upload, the put has failed and the file may be there all the same.
//!
//! Every request is bounded in time and repeated at most three times. Errors hold neither keys nor S3's words but its code.

mod config;
mod failure;
mod upload;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartId, ObjectStore as _, ObjectStoreExt as _};

pub use config::S3Config;
use config::{Place, SILENCE};
use failure::{Failure, within};
use upload::{Started, Upload};

use crate::intake::Intake;
use crate::{FileKey, Files, FilesError, Incoming, Outgoing, Stored};

/// How long a small request may take, repetitions included.
const ANSWER: Duration = Duration::from_secs(20);
/// How long sending a part may take, repetitions included.
const PART_TIME: Duration = Duration::from_mins(1);
/// How long S3 may take to put the parts together.
const COMPLETE: Duration = Duration::from_mins(2);
/// How long the question whether S3 is there may take.
const CHECK: Duration = Duration::from_secs(5);
/// What the check asks for. No file has this name: keys have no segment that begins with a dot.
const PROBE: &str = ".check";
/// How many uploads to abort are remembered.
const MAX_LEFT: usize = 1000;

/// Files in a bucket.
pub struct S3Files {
    store: AmazonS3,
    prefix: String,
    /// Uploads that S3 still has to forget.
    left: Mutex<Vec<(Path, MultipartId)>>,
}

impl S3Files {
    /// Reads `config`; nothing is sent. [`Files::check`] tells whether the bucket can be used.
    ///
    /// # Errors
    /// [`FilesError::Config`] when the URL is not understood or half of the key pair is missing.
    pub fn open(config: &S3Config) -> Result<Self, FilesError> {
        // A second call is refused by rustls, which is what we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = Place::parse(&config.url)?;
        let store = config::builder(&place, config)?.build().map_err(|error| Failure::of(&error))?;
        Ok(Self { store, prefix: place.prefix, left: Mutex::default() })
    }

    fn path(&self, key: &str) -> Result<Path, FilesError> {
        Ok(self.below(FileKey::parse(key)?.as_str()))
    }

    fn below(&self, name: &str) -> Path {
        if self.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.prefix)) }
    }

    async fn send(&self, path: Path, mut body: Incoming, max_bytes: u64) -> Result<Stored, FilesError> {
        let (mut intake, mut upload) = (Intake::new(max_bytes), Upload::new(self, path));
        loop {
            // Parts are sent while the source is waited for.
            let chunk = tokio::select! {
                chunk = body.next() => chunk,
                sent = upload.progress() => {
                    sent?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            upload.add(intake.take(chunk)?).await?;
        }
        upload.finish().await?;
        Ok(intake.stored())
    }

    /// Aborts what failed or abandoned puts left, until S3 does not answer.
    async fn sweep(&self) {
        loop {
            let Some(left) = self.left().pop() else { return };
            // It goes back to the others when the abort fails, or when this is dropped.
            if Started::left(self, left).abort().await.is_err() {
                return;
            }
        }
    }

    fn leave(&self, path: Path, id: MultipartId) {
        let mut left = self.left();
        if left.len() < MAX_LEFT {
            left.push((path, id));
        }
    }

    fn left(&self) -> MutexGuard<'_, Vec<(Path, MultipartId)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Files for S3Files {
    async fn put(&self, key: &str, body: Incoming, max_bytes: u64) -> Result<Stored, FilesError> {
        let path = self.path(key)?;
        let stored = self.send(path, body, max_bytes).await;
        self.sweep().await;
        stored
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, FilesError> {
        match within(ANSWER, self.store.head(&self.path(key)?)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(failure) if failure.missing => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Outgoing, FilesError> {
        let path = self.path(key)?;
        if range.is_empty() {
            return Ok(Box::pin(stream::empty()));
        }
        let left = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let body = within(ANSWER, self.store.get_opts(&path, options)).await?.into_stream();
        Ok(Box::pin(stream::try_unfold((body, left), |(mut body, left)| async move {
            let next = async { body.next().await.transpose() };
            match within(SILENCE + ANSWER, next).await? {
                Some(chunk) => {
                    let left = left.saturating_sub(chunk.len() as u64);
                    Ok(Some((chunk, (body, left))))
                }
                None if left == 0 => Ok(None),
                None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            }
        })))
    }

    async fn delete(&self, key: &str) -> Result<(), FilesError> {
        match within(ANSWER, self.store.delete(&self.path(key)?)).await {
            Err(failure) if !failure.missing => Err(failure.into()),
            _ => Ok(()),
        }
    }

    async fn check(&self) -> Result<(), FilesError> {
        // Not HEAD, whose answer has no code: it does not tell a missing bucket from a missing object.
        match within(CHECK, self.store.get(&self.below(PROBE))).await {
            Err(failure) if !failure.missing || failure.code.as_deref() == Some("NoSuchBucket") => Err(failure.into()),
            _ => {
                self.sweep().await;
                Ok(())
            }
        }
    }
}
