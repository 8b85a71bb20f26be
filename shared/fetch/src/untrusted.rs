//! The client for URLs that tenants gave.
//!
//! Every address is judged after its name was resolved, in the connector itself, so that a name which changes its mind
//! between check and use gains nothing. No redirects, no proxies, no cookies; time and answer are bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

use crate::policy::{Reach, UrlPolicy, UrlRefused};
use crate::trusted::{BodyError, BodyStream, causes};

/// How much of an answer is read, and for how long.
const MAX_ANSWER: usize = 16 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many addresses of one name are looked at.
const MAX_ADDRESSES: usize = 64;
/// How long a connection waits for another request.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// More than a worker delivers at once by default: a receiver of many webhooks must not cost a connection for each.
const MAX_IDLE_PER_HOST: usize = 256;

/// Why a tenant's URL got no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The policy forbids it.
    #[error("refused: {0}")]
    Refused(#[from] UrlRefused),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Failed(String),
}

/// The answer of a tenant's server.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status, redirects included.
    pub status: u16,
    /// Its `Retry-After`, when that is a number of seconds.
    pub retry_after: Option<u64>,
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct UntrustedFetcher {
    policy: Arc<UrlPolicy>,
    /// For https on the usual ports: public addresses and listed ones.
    public: Client,
    /// For http and other ports: listed addresses alone.
    listed: Client,
}

impl UntrustedFetcher {
    /// A fetcher under `policy`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(policy: UrlPolicy) -> Result<Self, FetchError> {
        // An error means that another part of the process chose a provider before; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = Arc::new(policy);
        Ok(Self { public: client(&policy, Reach::Public)?, listed: client(&policy, Reach::Listed)?, policy })
    }

    /// What a URL must fulfil.
    pub fn policy(&self) -> &UrlPolicy {
        &self.policy
    }

    /// Sends `body` to `url`; waits at most `timeout`. The status counts once it is here. Of the body a little is read, so that
    /// the connection can be used again, and forgotten.
    ///
    /// # Errors
    /// Why there is no answer, in words that name no address.
    pub async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, FetchError> {
        let (url, reach) = self.policy.judge(url)?;
        let client = if reach == Reach::Public { &self.public } else { &self.listed };
        let mut request = client.post(url).timeout(timeout).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let drain = async {
            let mut read = 0;
            while read < MAX_ANSWER
                && let Ok(Some(chunk)) = response.chunk().await
            {
                read += chunk.len();
            }
        };
        // A receiver that dribbles has given its answer all the same.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
        Ok(Answer { status, retry_after })
    }

    /// Asks `url` for a file; waits at most `head_timeout` for its beginning. The caller bounds the rest.
    ///
    /// # Errors
    /// Why there is no answer, in words that name no address.
    pub async fn get(&self, url: &str, head_timeout: Duration) -> Result<(u16, BodyStream), FetchError> {
        let (url, reach) = self.policy.judge(url)?;
        let client = if reach == Reach::Public { &self.public } else { &self.listed };
        let sent = tokio::time::timeout(head_timeout, client.get(url).send());
        let response = sent.await.map_err(|_| FetchError::Timeout)?.map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.bytes_stream().map_err(|error| BodyError::Broken(causes(&error.without_url())));
        Ok((status, Box::pin(body)))
    }
}

fn failed(error: reqwest::Error) -> FetchError {
    if error.is_timeout() { FetchError::Timeout } else { FetchError::Failed(causes(&error.without_url())) }
}

#[expect(clippy::disallowed_methods, reason = "this crate is where clients are made")]
fn client(policy: &Arc<UrlPolicy>, reach: Reach) -> Result<Client, FetchError> {
    Client::builder()
        .dns_resolver(Judging { policy: Arc::clone(policy), reach })
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .build()
        .map_err(|error| FetchError::Failed(causes(&error)))
}

/// Resolves names and gives out only addresses that were judged. One bad address spoils the name.
struct Judging {
    policy: Arc<UrlPolicy>,
    reach: Reach,
}

impl Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, reach) = (Arc::clone(&self.policy), self.reach);
        Box::pin(async move {
            let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name.as_str(), 0)));
            let found: Vec<SocketAddr> = found.await.map_err(|_| "its name was not resolved in time")??.collect();
            judged(&policy, reach, found)
        })
    }
}

fn judged(
    policy: &UrlPolicy,
    reach: Reach,
    found: Vec<SocketAddr>,
) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    if found.len() > MAX_ADDRESSES || !found.iter().all(|address| policy.allows(address.ip(), reach)) {
        return Err(UrlRefused::Address.into());
    }
    Ok(Box::new(found.into_iter()))
}

#[cfg(test)]
mod tests;
