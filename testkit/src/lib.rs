//! Fakes of what costs money or belongs to somebody else: providers that misbehave on command and count what they billed,
//! a receiver of webhooks that remembers everything, and a TCP proxy that takes any server away, freezes it or slows it down.
//!
//! They are independent of the code under test: no crate of the gateway is used here. What a request should suffer is said in
//! its prompt (`[fake …]`), so that the gateway in between needs no knowledge of it, or set on the fake for all requests.

pub mod directives;
pub mod jobs;
pub mod openai;
pub mod proxy;
pub mod server;
pub mod webhooks;

use std::time::{Duration, Instant};

pub use jobs::{JobsFake, JobsFaults, JobsStats};
pub use openai::{OpenaiFake, OpenaiStats};
pub use proxy::{FaultProxy, Mode, ProxyStats};
pub use webhooks::{Delivery, Reply, WebhookReceiver};

/// Asks `found` again and again until it gives something.
///
/// # Errors
/// After `deadline`, naming `what` did not happen.
pub async fn eventually<T, F>(what: &str, deadline: Duration, mut found: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(value) = found().await {
            return Ok(value);
        }
        anyhow::ensure!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
