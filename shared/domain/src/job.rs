//! A job: work that takes minutes, as its owner sees it.
//!
//! `queued → processing → completed | failed`. The last two are terminal and written exactly once. A cancelled job reads
//! `failed` with `error_code: "cancelled"`, since those are the only words that end the shipped clients' wait loops.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::catalog::Modality;
use crate::price::Used;
use crate::{Millis, Nano};

/// How long a result is kept.
pub const RESULT_KEPT: Duration = Duration::from_hours(168);
/// How long a `result_url` is good for when a job is read.
pub const RESULT_URL_GOOD: Duration = Duration::from_hours(24);

/// How long a job of `modality` may take before it fails with [`ErrorCode::DeadlineExceeded`].
pub fn deadline(modality: Modality) -> Duration {
    match modality {
        Modality::Music => Duration::from_mins(15),
        _ => Duration::from_mins(30),
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Accepted, durable, not begun.
    Queued,
    /// A provider has been asked, or is about to be.
    Processing,
    /// The result is stored.
    Completed,
    /// There will be no result; nothing is charged.
    Failed,
}

impl JobStatus {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Processing, Self::Completed, Self::Failed];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// The status of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether the job has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// The statuses that may follow this one. `docs/job-states.md` shows the same, and a test compares them.
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::Queued => &[Self::Processing, Self::Failed],
            Self::Processing => &[Self::Completed, Self::Failed],
            Self::Completed | Self::Failed => &[],
        }
    }
}

/// Why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Its owner cancelled it.
    Cancelled,
    /// It took longer than its deadline.
    DeadlineExceeded,
    /// It brought its worker down three times.
    Poison,
    /// The provider was asked and its answer lost; asking again could have cost twice.
    ProviderOutcomeUnknown,
    /// The provider failed.
    ProviderError,
    /// The provider refused the content.
    ContentRefused,
    /// The provider refused the input.
    InvalidInput,
    /// A bug on our side.
    Internal,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::Poison,
        Self::ProviderOutcomeUnknown,
        Self::ProviderError,
        Self::ContentRefused,
        Self::InvalidInput,
        Self::Internal,
    ];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Poison => "poison",
            Self::ProviderOutcomeUnknown => "provider_outcome_unknown",
            Self::ProviderError => "provider_error",
            Self::ContentRefused => "content_refused",
            Self::InvalidInput => "invalid_input",
            Self::Internal => "internal",
        }
    }

    /// The code of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }
}

/// What a completed job made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Such as `video.mp4`.
    pub filename: String,
    /// Such as `video/mp4`.
    pub content_type: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Seconds, for video and music.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Such as `320x180`, for video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// Under which key `Files` holds it; never on the wire.
    pub file_key: String,
}

/// Under which key the file that epoch `epoch` of a job's task made is stored. A worker that lost its lease thus never
/// writes over the file of the one that has it. One folder for all: each further one would have to be made durable too.
pub fn file_key(job_id: &str, epoch: i64, filename: &str) -> String {
    format!("jobs/{job_id}.{epoch}.{filename}")
}

/// Why a job failed, with a sentence for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// The reason.
    pub code: ErrorCode,
    /// What happened and what to do; no secrets, no internals.
    pub message: String,
}

impl JobError {
    /// A failure of `code` that says `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A job as the database holds it.
#[derive(Clone, Debug)]
pub struct Job {
    /// `job_…`
    pub id: String,
    /// Whose key submitted it: an account, or a sub-account.
    pub account_id: String,
    /// The account that pays, and sees it too.
    pub payer_id: String,
    /// The key that submitted it.
    pub key_id: String,
    /// The request that submitted it.
    pub request_id: String,
    /// What it makes.
    pub modality: Modality,
    /// The model's full id.
    pub model: String,
    /// The provider's name in the configuration.
    pub provider: String,
    /// Where it stands.
    pub status: JobStatus,
    /// The normalised request, a JSON object.
    pub params: String,
    /// The label of its cost.
    pub tag: Option<String>,
    /// The owner's own data, a JSON object.
    pub metadata: Option<String>,
    /// Where to send the record when it ends.
    pub webhook_url: Option<String>,
    /// Per cent, when the provider tells.
    pub progress: Option<i64>,
    /// When it was accepted.
    pub created_at: Millis,
    /// When it last changed.
    pub updated_at: Millis,
    /// When it ended.
    pub completed_at: Option<Millis>,
    /// When it was cancelled.
    pub cancelled_at: Option<Millis>,
    /// When it fails unless it has ended.
    pub deadline_at: Millis,
    /// When its result is deleted.
    pub expires_at: Option<Millis>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// What it made; gone after `expires_at`.
    pub result: Option<JobResult>,
    /// What it costs when it completes.
    pub price: Nano,
    /// What it cost.
    pub cost: Nano,
    /// Grows with every change.
    pub version: i64,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The result is durable.
    Completed(JobResult),
    /// There is none.
    Failed(JobError),
}

/// How long the media is that `params` asks for, in milliseconds, rounded up; `None` when they do not say.
pub fn asked_millis(params: &Map<String, Value>) -> Option<u64> {
    let seconds = params.get("duration")?.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
    Some((seconds * 1000.0).ceil() as u64)
}

impl Job {
    /// What it uses when it completes, in the units of its price.
    pub fn used(&self) -> Used {
        let params: Map<String, Value> = serde_json::from_str(&self.params).unwrap_or_default();
        Used::job(self.modality, asked_millis(&params).unwrap_or(0))
    }

    /// The job as it will read once it has ended with `outcome` at `now`.
    #[must_use]
    pub fn ended(mut self, outcome: &Outcome, now: Millis) -> Self {
        self.updated_at = now;
        self.completed_at = Some(now);
        self.version += 1;
        match outcome {
            Outcome::Completed(result) => {
                self.status = JobStatus::Completed;
                self.progress = Some(100);
                self.expires_at = Some(now.plus(RESULT_KEPT));
                self.result = Some(result.clone());
                self.cost = self.price;
            }
            Outcome::Failed(error) => {
                self.status = JobStatus::Failed;
                self.cancelled_at = (error.code == ErrorCode::Cancelled).then_some(now);
                self.error = Some(error.clone());
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_states_are_those_of_the_diagram() {
        let page = include_str!("../../../docs/job-states.md");
        for from in JobStatus::ALL {
            for to in JobStatus::ALL {
                let arrow = format!("    {} --> {}", from.as_str(), to.as_str());
                let drawn = page.lines().any(|line| line.trim_end() == arrow || line.starts_with(&format!("{arrow}:")));
                assert_eq!(drawn, from.next().contains(&to), "{arrow}");
            }
            let end = format!("    {} --> [*]", from.as_str());
            assert_eq!(page.lines().any(|line| line == end), from.is_terminal(), "{end}");
        }
    }

    #[test]
    fn words_read_back() {
        for status in JobStatus::ALL {
            assert_eq!(JobStatus::parse(status.as_str()), Some(status));
        }
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
    }
}
