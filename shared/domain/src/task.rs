//! A task: one row that stands for one piece of asynchronous work, whatever it serves.
//!
//! The row is the task; the broker only rings a bell. See `docs/decisions/0002-the-row-is-the-task.md`.

use std::time::Duration;

/// What a task does. Each kind has a handler in `worker/src/handlers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Make the media of a job.
    Generate,
    /// Deliver one webhook event.
    Webhook,
}

impl TaskKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Webhook => "webhook",
        }
    }
}

/// The queue that webhook deliveries wait in; the queues of jobs are named after their modality.
pub const WEBHOOK_QUEUE: &str = "webhook";

/// All queues, in the order in which workers start them.
pub const QUEUES: [&str; 4] = ["video", "music", "3d", WEBHOOK_QUEUE];

/// How far a generate task has come. Written before the step it names, so that a crash tells what may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing was sent to a provider.
    New,
    /// A submit is about to be sent, or was; its outcome is not known.
    Submitting,
    /// The provider's own id of the work is known.
    Polling,
    /// The result is being fetched and stored.
    Storing,
}

impl Phase {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Submitting => "submitting",
            Self::Polling => "polling",
            Self::Storing => "storing",
        }
    }

    /// The phase of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::New, Self::Submitting, Self::Polling, Self::Storing].into_iter().find(|p| p.as_str() == word)
    }
}

/// With this many crashes a task runs alone in its worker.
pub const CRASHES_BEFORE_ALONE: i64 = 2;
/// With this many crashes a task is buried as poison.
pub const CRASHES_BEFORE_BURIAL: i64 = 3;

/// How long a task rests after its `crashes`-th crash, so that a crash loop stays slow.
pub fn crash_backoff(crashes: i64) -> Duration {
    let attempt = u32::try_from(crashes.saturating_sub(1)).unwrap_or(0);
    crate::retry::exponential(Duration::from_millis(500), attempt, Duration::from_secs(30))
}

/// The right of one worker to work on one task: every write it makes names the epoch it claimed with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The task.
    pub task_id: String,
    /// Counts the claims of this task; a write with an older epoch changes nothing.
    pub epoch: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_read_back() {
        for phase in [Phase::New, Phase::Submitting, Phase::Polling, Phase::Storing] {
            assert_eq!(Phase::parse(phase.as_str()), Some(phase));
        }
        assert_eq!(Phase::parse("running"), None);
    }
}
