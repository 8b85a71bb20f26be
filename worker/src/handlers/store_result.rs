//! Keeping a result: fetched in bounds, named and typed by what it really is, durable before the job reads `completed`.

use aig_domain::job::{ErrorCode, JobError, JobResult, file_key};
use aig_files::{FilesError, safe_content_type, safe_filename};
use aig_providers::{Artifact, ProviderError, ProviderErrorKind};
use futures_util::StreamExt as _;

use super::generate::Generate;

/// Why a result was not stored.
pub(super) enum NotStored {
    /// It has to be tried again.
    Yet(ProviderError),
    /// It never will be.
    Never(JobError),
}

/// Fetches and stores a result.
pub(super) async fn store_result(task: &Generate, artifact: &Artifact) -> Result<JobResult, NotStored> {
    let app = &task.held.worker.app;
    let filename = safe_filename(&artifact.filename, fallback_name(artifact));
    let key = file_key(&task.job.id, task.held.lease.epoch, filename);
    let body = task.provider.download(artifact, &task.call).await.map_err(NotStored::Yet)?;
    let body = Box::pin(body.map(|chunk| chunk.map_err(|error| error.message)));
    let stored = match app.files.put(&key, body, app.config.worker.max_result_bytes).await {
        Ok(stored) => stored,
        Err(FilesError::TooLarge(limit)) => {
            let message =
                format!("The result is larger than the {limit} bytes this gateway keeps. Nothing was charged.");
            return Err(NotStored::Never(JobError::new(ErrorCode::ProviderError, message)));
        }
        Err(error) => {
            tracing::warn!(%error, "a result was not stored; trying again");
            let error = ProviderError::new(ProviderErrorKind::Unavailable, "The result could not be stored.");
            return Err(NotStored::Yet(error));
        }
    };
    Ok(JobResult {
        filename: filename.to_owned(),
        content_type: safe_content_type(&artifact.content_type, &stored.head).to_owned(),
        bytes: stored.bytes,
        sha256: stored.sha256,
        duration: artifact.duration,
        resolution: artifact.resolution.clone(),
        file_key: key,
    })
}

fn fallback_name(artifact: &Artifact) -> &'static str {
    match artifact.content_type.split('/').next() {
        Some("video") => "video.mp4",
        Some("audio") => "music.wav",
        _ => "model.glb",
    }
}
