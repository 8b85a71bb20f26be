//! The sandbox's jobs: video, music and meshes, ready `delay` after the submit.

use std::time::Duration;

use aig_domain::Millis;
use aig_domain::budget::{Billing, Reservation, Usage};
use aig_domain::catalog::Modality;
use aig_domain::job::{ErrorCode, JobError};
use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::directives::{Directives, Fail};
use super::{Sandbox, mesh, music, seed, video};
use crate::{
    Artifact, ByteStream, JobCall, JobProvider, Poll, ProviderError, ProviderErrorKind, ProviderTask, Submission,
};

/// The longest wait between two polls.
const POLL: Duration = Duration::from_secs(1);
/// The shortest.
const SHORTEST_POLL: Duration = Duration::from_millis(20);

fn prompt(call: &JobCall) -> &str {
    call.params.get("prompt").and_then(|prompt| prompt.as_str()).unwrap_or("")
}

fn seconds(call: &JobCall, default: f64) -> f64 {
    call.params.get("duration").and_then(serde_json::Value::as_f64).unwrap_or(default)
}

#[async_trait]
impl JobProvider for Sandbox {
    fn idempotent_submit(&self) -> bool {
        true
    }

    async fn submit(&self, reservation: Reservation, call: &JobCall) -> Submission {
        let directives = Directives::parse(prompt(call));
        if call.attempt < directives.fail_times {
            let message = "The sandbox is busy, as it was told to be.";
            return refused(reservation, Billing::NotSent, ProviderErrorKind::Unavailable, message);
        }
        if directives.fail == Some(Fail::UnknownOutcome) {
            let message = "The sandbox lost its answer, as it was told to.";
            return refused(reservation, Billing::MaybeBilled, ProviderErrorKind::Unavailable, message);
        }
        if call.modality == Modality::Video && video::shape(call).is_none() {
            let message = "`aspect_ratio` must be 16:9, 9:16 or 1:1 for this model.";
            return refused(reservation, Billing::NotSent, ProviderErrorKind::InvalidInput, message);
        }
        // The id holds all that a poll needs: when it began.
        let task = ProviderTask(self.clock.now().0.to_string());
        Submission { receipt: reservation.receipt(Billing::Billed(Usage::default())), outcome: Ok(task) }
    }

    async fn poll(&self, task: &ProviderTask, call: &JobCall, _polls: u32) -> Result<Poll, ProviderError> {
        let unknown = || ProviderError::new(ProviderErrorKind::NotFound, "The sandbox does not know this job.");
        let begun = Millis(task.0.parse().map_err(|_| unknown())?);
        let directives = Directives::parse(prompt(call));
        if directives.fail == Some(Fail::Timeout) {
            return Ok(Poll::Pending { progress: None, after: POLL });
        }
        let (gone, delay) = (begun.until(self.clock.now()), directives.delay);
        if gone < delay {
            let share = gone.as_millis() * 100 / delay.as_millis().max(1);
            let after = delay.saturating_sub(gone).clamp(SHORTEST_POLL, POLL);
            return Ok(Poll::Pending { progress: i64::try_from(share).ok(), after });
        }
        match directives.fail {
            Some(Fail::ContentRefused) => {
                let message = "The sandbox refused the content, as it was told to. Nothing was charged.";
                Ok(Poll::Failed(JobError::new(ErrorCode::ContentRefused, message)))
            }
            Some(Fail::ProviderError) => {
                let message = "The sandbox failed, as it was told to. Nothing was charged.";
                Ok(Poll::Failed(JobError::new(ErrorCode::ProviderError, message)))
            }
            _ => Ok(Poll::Done(artifact(call))),
        }
    }

    async fn download(&self, artifact: &Artifact, call: &JobCall) -> Result<ByteStream, ProviderError> {
        let length = artifact.duration.unwrap_or_default();
        match call.modality {
            Modality::Music => Ok(Box::pin(music::wav(seed(prompt(call)), length).map(Ok))),
            Modality::ThreeD => Ok(Box::pin(futures_util::stream::iter([Ok(mesh::glb(seed(prompt(call))))]))),
            Modality::Video | Modality::Text => {
                let unreadable =
                    |_| ProviderError::new(ProviderErrorKind::BadResponse, "The sandbox's clip is broken.");
                let shape = video::shape(call).unwrap_or_default();
                let clip = video::mp4(shape, length).map_err(unreadable)?;
                Ok(Box::pin(futures_util::stream::iter([Ok(clip)])))
            }
        }
    }

    async fn cancel(&self, _task: &ProviderTask) -> Result<(), ProviderError> {
        Ok(())
    }
}

fn refused(reservation: Reservation, billing: Billing, kind: ProviderErrorKind, message: &str) -> Submission {
    Submission { receipt: reservation.receipt(billing), outcome: Err(ProviderError::new(kind, message)) }
}

fn artifact(call: &JobCall) -> Artifact {
    let (filename, content_type, duration, resolution) = match call.modality {
        Modality::Music => ("music.wav", "audio/wav", Some(seconds(call, 8.0)), None),
        Modality::ThreeD => ("model.glb", "model/gltf-binary", None, None),
        Modality::Video | Modality::Text => {
            let resolution = video::shape(call).map(|shape| shape.resolution().to_owned());
            ("video.mp4", "video/mp4", Some(seconds(call, 4.0)), resolution)
        }
    };
    Artifact {
        filename: filename.into(),
        content_type: content_type.into(),
        duration,
        resolution,
        source: String::new(),
    }
}

#[cfg(test)]
mod tests;
