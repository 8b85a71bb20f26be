//! The embedded adapter: a folder.
//!
//! A file is written beside its place, synced, renamed into it, and the folder is synced: after a crash it is there whole or
//! not at all. What a crash left half-written is removed when the folder is opened.

use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::intake::Intake;
use crate::{FileKey, Files, FilesError, Incoming, Outgoing, Stored};

/// How much is read at once.
const CHUNK: usize = 128 * 1024;
/// Where files are written before they have their place.
const UNFINISHED: &str = ".unfinished";

/// A folder of files.
pub struct Directory {
    root: PathBuf,
    next: AtomicU64,
}

impl Directory {
    /// Opens the folder, makes it if needed, and removes what a crash left half-written.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub async fn open(root: &Path) -> Result<Self, FilesError> {
        let unfinished = root.join(UNFINISHED);
        if fs::try_exists(&unfinished).await? {
            fs::remove_dir_all(&unfinished).await?;
        }
        fs::create_dir_all(&unfinished).await?;
        Ok(Self { root: root.to_owned(), next: AtomicU64::new(0) })
    }

    fn place(&self, key: &str) -> Result<PathBuf, FilesError> {
        Ok(self.root.join(FileKey::parse(key)?.as_str()))
    }

    fn scratch(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join(UNFINISHED).join(format!("{}-{number}", std::process::id()))
    }
}

#[async_trait]
impl Files for Directory {
    async fn put(&self, key: &str, body: Incoming, max_bytes: u64) -> Result<Stored, FilesError> {
        let place = self.place(key)?;
        let scratch = Scratch(self.scratch());
        let stored = write(&scratch.0, body, max_bytes).await?;
        let folder = place.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&folder).await?;
        fs::rename(&scratch.0, &place).await?;
        sync_folders(&folder, &self.root).await?;
        Ok(stored)
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, FilesError> {
        match fs::metadata(self.place(key)?).await {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Outgoing, FilesError> {
        let mut file = File::open(self.place(key)?).await?;
        file.seek(SeekFrom::Start(range.start)).await?;
        let left = range.end.saturating_sub(range.start);
        Ok(Box::pin(stream::try_unfold((file, left), |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let mut buffer = BytesMut::zeroed(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            buffer.truncate(read);
            Ok(Some((buffer.freeze(), (file, left - read as u64))))
        })))
    }

    async fn delete(&self, key: &str) -> Result<(), FilesError> {
        let place = self.place(key)?;
        match fs::remove_file(&place).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        // Empty folders go with their last file; one that is not empty stays.
        let mut folder = place.parent();
        while let Some(empty) = folder.filter(|folder| *folder != self.root) {
            if fs::remove_dir(empty).await.is_err() {
                break;
            }
            folder = empty.parent();
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), FilesError> {
        let probe = Scratch(self.scratch());
        fs::write(&probe.0, b"").await?;
        Ok(())
    }
}

/// A file without its place yet; removed when it does not get one.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn write(path: &Path, mut body: Incoming, max_bytes: u64) -> Result<Stored, FilesError> {
    let mut file = File::create(path).await?;
    let mut intake = Intake::new(max_bytes);
    while let Some(chunk) = body.next().await {
        file.write_all(&intake.take(chunk)?).await?;
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok(intake.stored())
}

/// Makes new names durable, from `folder` up to `root`.
async fn sync_folders(folder: &Path, root: &Path) -> Result<(), FilesError> {
    for folder in folder.ancestors() {
        File::open(folder).await?.sync_all().await?;
        if folder == root {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
