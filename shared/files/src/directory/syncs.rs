//! Making new names durable: one sync of folders for everybody who waits at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::blocking;

/// The folders that are to be synced.
pub(super) struct Syncs {
    root: PathBuf,
    wanted: Mutex<Wanted>,
    /// The highest ticket that a finished sync covers. Whoever holds the lock syncs for all.
    covered: tokio::sync::Mutex<u64>,
}

#[derive(Default)]
struct Wanted {
    /// The last ticket given out.
    tickets: u64,
    /// Folders with the ticket that wanted them last.
    folders: BTreeMap<PathBuf, u64>,
}

impl Syncs {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), wanted: Mutex::default(), covered: tokio::sync::Mutex::default() }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every name that was in `folder` before the call is durable, and `folder` itself, up to the root.
    ///
    /// # Errors
    /// When one of these cannot be synced.
    pub(super) async fn sync(&self, folder: &Path) -> std::io::Result<()> {
        let ticket = self.want(folder);
        let mut covered = self.covered.lock().await;
        if *covered >= ticket {
            return Ok(());
        }
        let (upto, mut folders) = {
            let wanted = self.wanted();
            (wanted.tickets, wanted.folders.keys().cloned().collect::<BTreeSet<_>>())
        };
        // Also when a failure took them off the list.
        folders.extend(self.own(folder).map(Path::to_owned));
        // Folders stay on the list until it was tried, also when we are dropped here.
        let failed = blocking(move || Ok(all_that_fail(folders))).await?;
        self.wanted().folders.retain(|_, last| *last > upto);
        if failed.is_empty() {
            *covered = upto;
        }
        // Whoever else wanted what failed finds out in a turn of its own.
        failed
            .into_iter()
            .find(|(failed, _)| self.own(folder).any(|own| own == failed))
            .map_or(Ok(()), |(_, error)| Err(error))
    }

    /// `folder` and those above it, up to the root.
    fn own<'a>(&self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        let levels = folder.strip_prefix(&self.root).map_or(0, |below| below.components().count());
        folder.ancestors().take(levels + 1)
    }

    fn want(&self, folder: &Path) -> u64 {
        let mut wanted = self.wanted();
        wanted.tickets += 1;
        let ticket = wanted.tickets;
        for folder in self.own(folder) {
            wanted.folders.insert(folder.to_owned(), ticket);
        }
        ticket
    }
}

fn all_that_fail(folders: BTreeSet<PathBuf>) -> Vec<(PathBuf, std::io::Error)> {
    folders.into_iter().filter_map(|folder| sync_one(&folder).err().map(|error| (folder, error))).collect()
}

/// A folder that is gone holds no name to be kept: it was deleted with its last file.
fn sync_one(folder: &Path) -> std::io::Result<()> {
    match File::open(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        opened => opened?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use futures_util::future::try_join_all;

    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_is_served_and_nothing_is_left_on_the_list() {
        let temp = tempfile::tempdir().unwrap();
        let syncs = Syncs::new(temp.path());
        let held = syncs.covered.lock().await;
        let folders = [0, 1, 2].map(|n| temp.path().join(n.to_string()));
        for folder in &folders {
            std::fs::create_dir(folder).unwrap();
        }
        let mut all = pin!(try_join_all((0..10).map(|n| syncs.sync(&folders[n % 3]))));
        assert!(all.as_mut().now_or_never().is_none(), "a sync is under way");
        assert_eq!(syncs.wanted().folders.len(), 4);
        drop(held);
        all.await.unwrap();
        assert!(syncs.wanted().folders.is_empty());
        assert_eq!(*syncs.covered.lock().await, 10);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_synced_fails_those_who_want_it_alone() {
        let temp = tempfile::tempdir().unwrap();
        let syncs = Syncs::new(temp.path());
        let not_a_folder = temp.path().join("file").join("below");
        std::fs::write(temp.path().join("file"), b"").unwrap();
        let held = syncs.covered.lock().await;
        let mut all =
            pin!(async { tokio::join!(syncs.sync(temp.path()), syncs.sync(&not_a_folder), syncs.sync(&not_a_folder)) });
        assert!(all.as_mut().now_or_never().is_none());
        drop(held);
        let (good, bad, bad_too) = all.await;
        assert!(good.is_ok() && bad.is_err() && bad_too.is_err());
        assert!(syncs.sync(temp.path()).await.is_ok(), "nobody else is held up");
    }
}
