//! Links to results: absolute, signed, good without a key until they expire.
//!
//! They are made of the configured media URL, never of a request's `Host` header.

use std::sync::Arc;

use crate::Millis;
use crate::crypto::KeyRing;
use crate::job::{Job, RESULT_URL_GOOD};
use crate::job_request::JobRecord;
use crate::signing::{FileToken, sign_file};

/// Makes links to result files.
#[derive(Clone)]
pub struct Links {
    media_url: String,
    ring: Arc<KeyRing>,
}

impl Links {
    /// Links below `media_url`, such as `http://127.0.0.1:8080`, signed with `ring`.
    pub fn new(media_url: &str, ring: Arc<KeyRing>) -> Self {
        Self { media_url: media_url.trim_end_matches('/').to_owned(), ring }
    }

    /// A link to `file` of `job` that is good until `exp` (Unix seconds).
    pub fn file(&self, job: &str, file: &str, exp: i64) -> String {
        let FileToken { token, exp, k } = sign_file(&self.ring, job, file, exp);
        format!("{}/v1/files/jobs/{job}/{file}/public?token={token}&exp={exp}&k={k}", self.media_url)
    }

    /// The record of `job` as it is read at `now`: its link is good for [`RESULT_URL_GOOD`], or as long as the file is.
    pub fn record(&self, job: &Job, now: Millis) -> JobRecord {
        let exp = job.expires_at.map_or(i64::MAX, Millis::unix_seconds).min(now.plus(RESULT_URL_GOOD).unix_seconds());
        self.record_until(job, exp)
    }

    /// The record of `job` for its webhook: its link is good as long as the file, so that every attempt sends the same bytes.
    pub fn webhook_record(&self, job: &Job) -> JobRecord {
        self.record_until(job, job.expires_at.map_or(0, Millis::unix_seconds))
    }

    fn record_until(&self, job: &Job, exp: i64) -> JobRecord {
        JobRecord::new(job, job.result.as_ref().map(|result| self.file(&job.id, &result.filename, exp)))
    }
}
