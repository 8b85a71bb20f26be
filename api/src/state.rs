//! What every handler can reach.

use std::sync::Arc;

use aig_platform::{App, Shutdown};
use aig_store::ApiKey;
use aig_tasks::ProcessLease;

use crate::job_watch::JobWatch;
use crate::middleware::body::BodyLimits;
use crate::middleware::key_cache::KeyCache;

/// The state of the API, shared by all requests.
pub struct ApiState {
    /// Everything the process is made of.
    pub app: App,
    /// This process, as the database knows it.
    pub process: ProcessLease,
    /// Says when the process stops.
    pub shutdown: Shutdown,
    /// Who waits for which job.
    pub jobs: JobWatch,
    /// Keys seen lately.
    pub keys: KeyCache<ApiKey>,
    /// What clients set as their base URL: the public URL and `/v1`.
    pub base_url: String,
    /// What a chat request may take.
    pub chat_body: BodyLimits,
    /// What a job request may take.
    pub job_body: BodyLimits,
}

/// A handle to it.
pub type Api = Arc<ApiState>;
