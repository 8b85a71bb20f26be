//! What every handler can reach.

use std::sync::Arc;

use aig_cache::Signal;
use aig_platform::{App, Shutdown};
use aig_tasks::ProcessLease;

use crate::job_watch::JobWatch;
use crate::middleware::auth::KnownKey;
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
    pub keys: KeyCache<KnownKey>,
    /// What clients set as their base URL: the public URL and `/v1`.
    pub base_url: String,
    /// What a chat request may take.
    pub chat_body: BodyLimits,
    /// What a job request may take.
    pub job_body: BodyLimits,
}

impl ApiState {
    /// Tells every api process that something above the keys of an account or a sub-account has changed.
    pub async fn account_changed(&self, account_id: &str) {
        match self.app.store.live_keys(account_id).await {
            Ok(keys) => self.keys_changed(keys).await,
            Err(error) => tracing::warn!(%error, "a change is known everywhere in two seconds, not at once"),
        }
    }

    /// Tells every api process, this one first, that these keys have changed. Who does not hear it forgets them in two seconds.
    pub async fn keys_changed(&self, public_ids: Vec<String>) {
        for public_id in public_ids {
            self.keys.forget(&public_id);
            self.app.bus.send(Signal::KeyChanged { public_id }).await;
        }
    }
}

/// A handle to it.
pub type Api = Arc<ApiState>;
