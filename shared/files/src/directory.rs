//! The embedded adapter: a folder.
//!
//! A file is written beside its place, synced, renamed into it, and the folder is synced: after a crash it is there whole or
//! not at all. Several processes, also of several machines, may share the folder: names are random, and what a crash left
//! half-written is removed when the folder is opened only once it is a day old.
//!
//! Small files take one trip to a blocking thread; a sync of folders serves everybody who waits for one ([`syncs`]).

mod syncs;

use std::io::{SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aig_domain::id::random_bytes;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use syncs::Syncs;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::intake::Intake;
use crate::{FileKey, Files, FilesError, Incoming, Outgoing, Stored};

/// How much is read at once.
const CHUNK: usize = 128 * 1024;
/// A file that is no longer is taken in whole before it is written.
const SMALL: usize = 128 * 1024;
/// Where files are written before they have their place.
const UNFINISHED: &str = ".unfinished";
/// How much has to fit on the disk for it to be fit for use: one block.
const PROBE: usize = 4096;
/// When a file that has no place yet can be nobody's work any more.
const ABANDONED: Duration = Duration::from_hours(24);

/// A folder of files.
pub struct Directory {
    root: PathBuf,
    syncs: Syncs,
}

impl Directory {
    /// Opens the folder, makes it if needed, and removes what crashes left half-written.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub async fn open(root: &Path) -> Result<Self, FilesError> {
        fs::create_dir_all(root.join(UNFINISHED)).await?;
        let directory = Self { root: root.to_owned(), syncs: Syncs::new(root) };
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
        let folder = place.parent().unwrap_or(&self.root).to_owned();
        let scratch = Scratch(self.scratch());
        let mut intake = Intake::new(max_bytes);
        // Gone when we are dropped: then the file is not to get its place behind our back.
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        match beginning(body, &mut intake).await? {
            Beginning::Whole(chunks) => blocking(move || write_whole(scratch, &chunks, &place, &still_wanted)).await?,
            Beginning::Part(chunks, rest) => {
                write(&scratch.0, &chunks, rest, &mut intake).await?;
                blocking(move || scratch.move_to(&place)).await?;
            }
        }
        self.syncs.sync(&folder).await?;
        drop(wanted);
        Ok(intake.stored())
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
        // A disk that is full still takes empty files.
        fs::write(&probe.0, [0; PROBE]).await?;
        Ok(())
    }
}

/// A file without its place yet; removed when it does not get one.
struct Scratch(PathBuf);

impl Scratch {
    /// Gives the file its place. Its folder may be missing, and may be deleted again at any moment while it is empty.
    fn move_to(mut self, place: &Path) -> std::io::Result<()> {
        let mut moved = std::fs::rename(&self.0, place);
        for _ in 0..2 {
            if moved.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                std::fs::create_dir_all(place.parent().unwrap_or(place))?;
                moved = std::fs::rename(&self.0, place);
            }
        }
        if moved.is_ok() {
            self.0 = PathBuf::new();
        }
        moved
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // It may never have been made.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// What came first.
enum Beginning {
    /// All there is.
    Whole(Vec<Bytes>),
    /// More than [`SMALL`], and what is still to come.
    Part(Vec<Bytes>, Incoming),
}

async fn beginning(mut body: Incoming, intake: &mut Intake) -> Result<Beginning, FilesError> {
    let (mut chunks, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = body.next().await {
        let chunk = intake.take(chunk)?;
        if chunk.is_empty() {
            continue;
        }
        bytes += chunk.len();
        chunks.push(chunk);
        if bytes > SMALL {
            return Ok(Beginning::Part(chunks, body));
        }
    }
    Ok(Beginning::Whole(chunks))
}

/// Runs what would block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

fn write_whole(scratch: Scratch, chunks: &[Bytes], place: &Path, wanted: &Weak<()>) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(&scratch.0)?;
    for chunk in chunks {
        file.write_all(chunk)?;
    }
    // The size, without which the data could not be read, goes with the data.
    file.sync_data()?;
    if wanted.strong_count() == 0 {
        return Err(std::io::Error::other("nobody waits for the file any more"));
    }
    scratch.move_to(place)
}

async fn write(path: &Path, chunks: &[Bytes], mut rest: Incoming, intake: &mut Intake) -> Result<(), FilesError> {
    let mut file = File::create_new(path).await?;
    for chunk in chunks {
        file.write_all(chunk).await?;
    }
    while let Some(chunk) = rest.next().await {
        file.write_all(&intake.take(chunk)?).await?;
    }
    file.flush().await?;
    Ok(file.sync_data().await?)
}

#[cfg(test)]
mod tests;
