//! The upstream's job record: strict about types, lenient about everything else.

use std::time::Duration;

use aig_domain::catalog::Modality;
use aig_domain::job::{ErrorCode, JobError};
use serde::Deserialize;

use crate::upstream::{bad_response, scrub};
use crate::{Artifact, Poll, ProviderError};

/// The longest id that is kept.
const MAX_ID: usize = 200;

#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    status: String,
    progress: Option<f64>,
    result_url: Option<String>,
    result: Option<ResultPart>,
    error: Option<ErrorPart>,
    error_code: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResultPart {
    url: Option<String>,
    file_url: Option<String>,
    filename: Option<String>,
    content_type: Option<String>,
    duration: Option<f64>,
    resolution: Option<String>,
}

/// A sentence, or an object that holds one: both are published.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ErrorPart {
    Text(String),
    Object { code: Option<String>, message: Option<String> },
}

/// Whether the upstream's id can be one segment of a path: it came from outside.
pub(super) fn is_path_segment(id: &str) -> bool {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    plain && !id.is_empty() && !id.starts_with('.')
}

impl Record {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ProviderError> {
        let record: Self =
            serde_json::from_slice(body).map_err(|_| bad_response("The provider's job record makes no sense."))?;
        if record.id.len() > MAX_ID || !is_path_segment(&record.id) {
            return Err(bad_response("The provider's job record has no usable id."));
        }
        Ok(record)
    }

    pub(super) fn into_poll(self, modality: Modality, after: Duration) -> Result<Poll, ProviderError> {
        match self.status.as_str() {
            "queued" | "processing" | "running" => {
                let progress = self.progress.filter(|value| (0.0..=100.0).contains(value));
                #[expect(clippy::cast_possible_truncation, reason = "between 0 and 100")]
                let progress = progress.map(|value| value as i64);
                Ok(Poll::Pending { progress, after })
            }
            "completed" => self.into_artifact(modality).map(Poll::Done),
            "failed" | "cancelled" => Ok(Poll::Failed(self.into_error())),
            _ => Err(bad_response("The provider's job record has an unknown status.")),
        }
    }

    fn into_artifact(self, modality: Modality) -> Result<Artifact, ProviderError> {
        let result = self.result.unwrap_or_default();
        let source = self.result_url.or(result.file_url).or(result.url);
        let (filename, content_type) = match modality {
            Modality::Music => ("music.wav", "audio/wav"),
            Modality::ThreeD => ("model.glb", "model/gltf-binary"),
            Modality::Video | Modality::Text => ("video.mp4", "video/mp4"),
        };
        Ok(Artifact {
            filename: result.filename.unwrap_or_else(|| filename.into()),
            content_type: result.content_type.unwrap_or_else(|| content_type.into()),
            duration: result.duration.filter(|seconds| seconds.is_finite()),
            resolution: result.resolution.filter(|text| text.len() <= 32),
            source: source.ok_or_else(|| bad_response("The provider completed the job without a result."))?,
        })
    }

    fn into_error(self) -> JobError {
        let (code, message) = match self.error {
            Some(ErrorPart::Text(text)) => (self.error_code, Some(text)),
            Some(ErrorPart::Object { code, message }) => (self.error_code.or(code), message),
            None => (self.error_code, None),
        };
        let code = match code.as_deref() {
            Some("content_refused") => ErrorCode::ContentRefused,
            Some("invalid_input") => ErrorCode::InvalidInput,
            _ => ErrorCode::ProviderError,
        };
        let words = message.map_or_else(|| "it gave no reason".to_owned(), |text| scrub(&text, None));
        JobError::new(code, format!("The provider failed the job: {words}"))
    }
}
