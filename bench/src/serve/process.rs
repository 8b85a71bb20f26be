//! A child process that writes into a folder of its own and ends with its handle.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aig_testkit::eventually;
use anyhow::Context as _;
use tempfile::TempDir;

use crate::cpu::{family, used};

/// How long a start may take.
pub const START: Duration = Duration::from_secs(20);

/// How long a process with children may take to end itself and them.
const GRACE: Duration = Duration::from_secs(2);

/// A running process and its folder; both are gone when this is dropped and nobody holds the folder.
pub struct Process {
    child: Child,
    folder: Arc<TempDir>,
}

impl Process {
    /// Starts `command`, which may use `folder`; what it prints goes to `out` and `log` there.
    pub fn start(mut command: Command, folder: TempDir) -> anyhow::Result<Self> {
        let file = |name| std::fs::File::create(folder.path().join(name));
        command.stdin(Stdio::null()).stdout(file("out")?).stderr(file("log")?);
        let child = command.spawn().with_context(|| format!("{} does not start", command.get_program().display()))?;
        Ok(Self { child, folder: Arc::new(folder) })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its folder, which stays as long as somebody holds it.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a file in the folder whose first line is whole, and gives that line.
    pub async fn line(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        let line = eventually(name, START, || async { first_line(&path) }).await;
        line.with_context(|| format!("it did not start; it said: {}", self.said()))
    }

    /// The end of what it printed, for errors.
    pub fn said(&self) -> String {
        let read = |name| std::fs::read_to_string(self.path(name)).unwrap_or_default();
        let said = [read("out"), read("log")].concat();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

fn first_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_once('\n').map(|(line, _)| line.to_owned())
}

impl Drop for Process {
    fn drop(&mut self) {
        // All best effort: what is gone already is what we want.
        let below: Vec<u32> = family(self.id()).into_iter().skip(1).collect();
        if !below.is_empty() {
            // nginx's workers would outlive a master that was killed, so it is asked first.
            signal("-TERM", &[self.id()]);
            let begun = Instant::now();
            while begun.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        signal("-KILL", &below);
        let _ = self.child.wait();
    }
}

/// Signals processes that are our own child or below it.
fn signal(name: &str, pids: &[u32]) {
    let there: Vec<String> = pids.iter().filter(|pid| used(&[**pid]).is_ok()).map(ToString::to_string).collect();
    if !there.is_empty() {
        let _ = Command::new("kill").arg(name).args(there).stderr(Stdio::null()).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_outlives_its_handle() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]);
        let process = Process::start(command, tempfile::tempdir().unwrap()).unwrap();
        let (folder, below) = (process.path(""), process.line("out").await.unwrap());
        let running = |pid: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        assert!(running(&below));
        drop(process);
        eventually("it ends", START, || async { (!running(&below)).then_some(()) }).await.unwrap();
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn what_does_not_start_says_why() {
        let error = Process::start(Command::new("/nowhere/x"), tempfile::tempdir().unwrap()).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/x does not start");
    }
}
