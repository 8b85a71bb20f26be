//! The embedded adapter: a folder.
//!
//! A file is written beside its place, synced, renamed into it, and the folder is synced: after a crash it is there whole or
//! not at all. Several processes, also of several machines, may share the folder: names are random, and what a crash left
//! half-written is removed when the folder is opened only once it is a day old.

use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aig_domain::id::random_bytes;
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
/// When a file that has no place yet can be nobody's work any more.
const ABANDONED: Duration = Duration::from_hours(24);

/// A folder of files.
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Opens the folder, makes it if needed, and removes what crashes left half-written.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub async fn open(root: &Path) -> Result<Self, FilesError> {
        fs::create_dir_all(root.join(UNFINISHED)).await?;
        let directory = Self { root: root.to_owned() };
        directory.remove_abandoned().await?;
        Ok(directory)
    }

    /// Ages are told by the folder's own clock, which may be another machine's.
    async fn remove_abandoned(&self) -> Result<(), FilesError> {
        let probe = Scratch(self.scratch());
        fs::write(&probe.0, b"").await?;
        let now = fs::metadata(&probe.0).await?.modified()?;
        let mut entries = fs::read_dir(self.root.join(UNFINISHED)).await?;
        while let Some(entry) = entries.next_entry().await? {
            // It may be gone by now: finished, or removed by another process.
            let Ok(modified) = entry.metadata().await.and_then(|meta| meta.modified()) else { continue };
            if now.duration_since(modified).is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(entry.path()).await;
            }
        }
        Ok(())
    }

    fn place(&self, key: &str) -> Result<PathBuf, FilesError> {
        Ok(self.root.join(FileKey::parse(key)?.as_str()))
    }

    fn scratch(&self) -> PathBuf {
        self.root.join(UNFINISHED).join(hex::encode(random_bytes::<16>()))
    }
}

#[async_trait]
impl Files for Directory {
    async fn put(&self, key: &str, body: Incoming, max_bytes: u64) -> Result<Stored, FilesError> {
        let place = self.place(key)?;
        let scratch = Scratch(self.scratch());
        let stored = write(&scratch.0, body, max_bytes).await?;
        let folder = place.parent().unwrap_or(&self.root).to_owned();
        move_into(&scratch.0, &folder, &place).await?;
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
    let mut file = File::create_new(path).await?;
    let mut intake = Intake::new(max_bytes);
    while let Some(chunk) = body.next().await {
        file.write_all(&intake.take(chunk)?).await?;
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok(intake.stored())
}

/// Gives a file its place. A folder that was empty may be deleted between its making and its use; then it is made again.
async fn move_into(scratch: &Path, folder: &Path, place: &Path) -> Result<(), FilesError> {
    fs::create_dir_all(folder).await?;
    match fs::rename(scratch, place).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).await?;
            Ok(fs::rename(scratch, place).await?)
        }
        moved => Ok(moved?),
    }
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
