//! Start and stop.
//!
//! The order of a stop: `/readyz` answers 503 → no new connections → the scheduler stops → workers stop claiming → streams get
//! 20 s, then an error event → the lanes drain → pools close. At most 25 s in all. A second signal ends at once.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long streams may go on after the shutdown began.
const STREAM_GRACE: Duration = Duration::from_secs(20);
/// How long the roles may take in all.
const ROLE_GRACE: Duration = Duration::from_secs(23);

/// Tells every part when to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    stopping: CancellationToken,
    streams: CancellationToken,
}

impl Shutdown {
    /// Nothing is stopping yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the shutdown; again has no effect.
    pub fn begin(&self) {
        self.stopping.cancel();
    }

    /// Whether the shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Returns when the shutdown begins.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Is cancelled when streams have had their time.
    pub fn streams_must_end(&self) -> CancellationToken {
        self.streams.clone()
    }
}

/// A role: its name and its run.
pub type Role = (&'static str, Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>);

/// Runs `roles` until the shutdown begins and they have ended.
///
/// # Errors
/// When a role ends before the shutdown, with or without an error of its own; the others are stopped then.
pub async fn run_roles(roles: Vec<Role>, shutdown: &Shutdown, tracker: &TaskTracker) -> anyhow::Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for (name, role) in roles {
        let role = tracker.track_future(role);
        running.spawn(async move { (name, role.await) });
    }
    let mut first_error = None;
    let streams = shutdown.streams_must_end();
    let deadline = async {
        shutdown.stopping().await;
        tokio::time::sleep(STREAM_GRACE).await;
        streams.cancel();
        tokio::time::sleep(ROLE_GRACE.saturating_sub(STREAM_GRACE)).await;
    };
    let mut deadline = std::pin::pin!(deadline);
    loop {
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = &mut deadline => {
                tracing::warn!(roles = running.len(), "roles did not end in time");
                break;
            }
        };
        let Some(ended) = ended else { break };
        let error = match ended {
            Ok((_, Ok(()))) if shutdown.is_stopping() => None,
            Ok((name, Ok(()))) => Some(anyhow::anyhow!("the {name} ended by itself")),
            Ok((name, Err(error))) => Some(error.context(format!("the {name} failed"))),
            Err(panic) => Some(anyhow::anyhow!("a role panicked: {panic}")),
        };
        if let Some(error) = error {
            shutdown.begin();
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_stopping(shutdown: &Shutdown) -> Role {
        let shutdown = shutdown.clone();
        (
            "patient",
            Box::pin(async move {
                shutdown.stopping().await;
                Ok(())
            }),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_ends_early_stops_the_others() {
        for (early, says) in [(Ok(()), "ended by itself"), (Err(anyhow::anyhow!("no disk")), "failed")] {
            let shutdown = Shutdown::new();
            let roles: Vec<Role> = vec![until_stopping(&shutdown), ("hasty", Box::pin(async move { early }))];
            let error = run_roles(roles, &shutdown, &TaskTracker::new()).await.unwrap_err();
            assert!(error.to_string().contains(says), "{error:#}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_after_their_grace_and_stuck_roles_are_left_behind() {
        let shutdown = Shutdown::new();
        let (streams, begun) = (shutdown.streams_must_end(), tokio::time::Instant::now());
        let stream: Role = (
            "api",
            Box::pin(async move {
                streams.cancelled().await;
                assert_eq!(begun.elapsed(), STREAM_GRACE);
                Ok(())
            }),
        );
        let stuck: Role = ("stuck", Box::pin(std::future::pending()));
        shutdown.begin();
        run_roles(vec![stream, stuck], &shutdown, &TaskTracker::new()).await.unwrap();
        assert_eq!(begun.elapsed(), ROLE_GRACE);
    }
}
