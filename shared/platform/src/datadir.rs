//! The data folder: what lives in it and who may read it; and the lock that keeps a second process out of a database.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aig_domain::Secret;
use aig_domain::crypto::KeyRing;
use anyhow::{Context as _, bail};

/// The data folder of this process.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// Held while this process owns the embedded database.
#[derive(Debug)]
pub struct DatabaseLock {
    _file: File,
}

impl DatabaseLock {
    /// Keeps other processes out of the SQLite database at `database` until the lock is dropped, whatever their data folder.
    ///
    /// # Errors
    /// When another process holds it.
    pub fn take(database: &Path) -> anyhow::Result<Self> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.with_context(|| format!("{} cannot be opened", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another aigateway already runs on the database {}. Stop it, or give this one a folder of its own with \
                 --data-dir.",
                database.display()
            ),
            Err(fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} cannot be locked", path.display()))
            }
        }
    }
}

impl DataDir {
    /// Makes the folder if needed, for nobody else to read.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("the data folder {} cannot be made", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The secret keys: those given, else the ones in `secret-key`, made on the first start.
    ///
    /// # Errors
    /// When they cannot be read or understood.
    pub fn key_ring(&self, given: Option<&Secret>) -> anyhow::Result<KeyRing> {
        if let Some(given) = given {
            return KeyRing::parse(given.expose()).context("AIG_SECRET_KEY");
        }
        let path = self.join("secret-key");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = KeyRing::generate();
                self.write("secret-key", &text)?;
                text
            }
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        KeyRing::parse(text.trim()).with_context(|| format!("{}", path.display()))
    }

    /// Writes a file that only its owner may read, whole or not at all.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        // A name of its own: several processes may share the folder.
        let (scratch, place) = (self.join(&format!(".{name}.{}", std::process::id())), self.join(name));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&scratch)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&scratch, &place)?;
            File::open(&self.0)?.sync_all()
        };
        write().with_context(|| format!("{} cannot be written", place.display()))
    }

    /// Removes a file; one that is not there is removed already.
    pub fn remove(&self, name: &str) {
        // Best effort: what stays behind is a stale hint, nothing more.
        let _ = fs::remove_file(self.join(name));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let folder = DataDir::open(&temp.path().join("data")).unwrap();
        folder.key_ring(None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&temp.path().join("data")), 0o700);
        assert_eq!(mode(&folder.join("secret-key")), 0o600);
    }

    #[test]
    fn the_secret_key_is_made_once() {
        let temp = tempfile::tempdir().unwrap();
        let folder = DataDir::open(temp.path()).unwrap();
        let first = folder.key_ring(None).unwrap().fingerprints();
        assert_eq!(folder.key_ring(None).unwrap().fingerprints(), first);
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let database = temp.path().join("gateway.db");
        let first = DatabaseLock::take(&database).unwrap();
        let refused = DatabaseLock::take(&database).unwrap_err().to_string();
        assert!(refused.contains("another aigateway"), "{refused}");
        drop(first);
        DatabaseLock::take(&database).unwrap();
    }
}
