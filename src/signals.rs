//! SIGTERM and SIGINT: the first begins the shutdown, the second ends the process at once.

use aig_platform::Shutdown;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a process that was told to end at once.
const AT_ONCE: i32 = 130;

/// Watches for signals until the process ends.
///
/// # Errors
/// When the operating system refuses.
pub(crate) fn watch(shutdown: Shutdown, tracker: &tokio_util::task::TaskTracker) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    tracker.spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("stopping; a second signal ends at once");
                shutdown.begin();
            } else {
                std::process::exit(AT_ONCE);
            }
        }
    });
    Ok(())
}
