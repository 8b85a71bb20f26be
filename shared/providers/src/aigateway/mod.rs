//! Upstreams that speak this gateway's own contract: jobs over HTTP.
//!
//! The job id is sent as `Idempotency-Key`. Whether the upstream honours it is the operator's word (`idempotent_submit`); a
//! submit whose answer was lost is repeated only if it does.

mod record;

use std::time::Duration;

use aig_domain::Secret;
use aig_domain::budget::{Billing, Reservation, Usage};
use aig_domain::catalog::Modality;
use aig_fetch::{BodyStream, FetchError, SendError, TrustedClient, UntrustedFetcher, read_bounded, with_idle_timeout};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use url::Url;

use crate::registry::ProviderConfig;
use crate::upstream::{bad_response, broken_body, not_answered, not_built, refused, request, retry_after};
use crate::{
    Artifact, ByteStream, JobCall, JobProvider, Poll, ProviderError, ProviderErrorKind, ProviderTask, Submission,
};
use record::{Record, is_path_segment};

/// How long the upstream may take to answer a submit, a poll, a cancel; and to begin a download.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest record that is read.
const MAX_RECORD: usize = 1024 * 1024;
/// A download that is silent for this long is given up.
const DOWNLOAD_IDLE: Duration = Duration::from_mins(1);
const FIRST_POLL: Duration = Duration::from_millis(500);
const LONGEST_POLL: Duration = Duration::from_secs(10);

/// One upstream.
pub struct Aigateway {
    base: Url,
    key: Option<Secret>,
    idempotent_submit: bool,
    client: TrustedClient,
    fetcher: UntrustedFetcher,
}

impl Aigateway {
    /// The upstream of `config`. Links of its records that lead to another host go through `fetcher`: where they lead is
    /// the upstream's word, not the operator's.
    pub fn new(config: ProviderConfig, client: TrustedClient, fetcher: UntrustedFetcher) -> Self {
        let (base, key, idempotent_submit) = (config.base_url, config.api_key, config.idempotent_submit);
        Self { base, key, idempotent_submit, client, fetcher }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    fn submit_request(&self, call: &JobCall) -> Option<Request<Bytes>> {
        let path = match call.modality {
            Modality::Video => "/v1/videos/generations",
            Modality::Music => "/v1/audio/music",
            Modality::ThreeD => "/v1/3d/generations",
            Modality::Text => return None,
        };
        let mut body: Map<String, Value> = call.params.clone();
        body.insert("model".into(), json!(call.model));
        let body = Value::Object(body).to_string();
        let mut request = request(Method::POST, &self.url(path), self.key.as_ref(), body.into())?;
        request.headers_mut().insert("idempotency-key", HeaderValue::from_str(&call.job_id).ok()?);
        Some(request)
    }

    async fn record(&self, response: Response<BodyStream>) -> Result<Record, ProviderError> {
        let body = read_bounded(response.into_body(), MAX_RECORD, ANSWER_TIMEOUT).await;
        Record::parse(&body.map_err(|error| broken_body(&error))?)
    }

    async fn get(&self, url: &str) -> Result<Response<BodyStream>, ProviderError> {
        let request = request(Method::GET, url, self.key.as_ref(), Bytes::new()).ok_or_else(not_built)?;
        let response = self.client.send(request, ANSWER_TIMEOUT).await.map_err(|error| not_answered(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response, self.key.as_ref()).await) }
    }

    /// A file on another host than the upstream's: without its key, and only from public addresses.
    async fn get_elsewhere(&self, url: &Url) -> Result<BodyStream, ProviderError> {
        match self.fetcher.get(url.as_str(), ANSWER_TIMEOUT).await {
            Ok((200..=299, body)) => Ok(body),
            Ok((status, _)) => {
                tracing::warn!(status, "a provider's link was not answered with a file");
                Err(ProviderError::new(ProviderErrorKind::Unavailable, "The provider's link does not lead to a file."))
            }
            Err(FetchError::Refused(_)) => {
                Err(bad_response("The provider's link leads to a place that is not public, or not by https."))
            }
            Err(error) => {
                tracing::warn!(%error, "a provider's link did not answer");
                Err(ProviderError::new(ProviderErrorKind::Unavailable, "The provider's link does not answer."))
            }
        }
    }
}

#[async_trait]
impl JobProvider for Aigateway {
    fn idempotent_submit(&self) -> bool {
        self.idempotent_submit
    }

    async fn submit(&self, reservation: Reservation, call: &JobCall) -> Submission {
        let ended = |billing, outcome| Submission { receipt: reservation.receipt(billing), outcome };
        let Some(request) = self.submit_request(call) else { return ended(Billing::NotSent, Err(not_built())) };
        let response = match self.client.send(request, ANSWER_TIMEOUT).await {
            Ok(response) => response,
            Err(error @ SendError::NotSent(_)) => return ended(Billing::NotSent, Err(not_answered(&error))),
            Err(error) => return ended(Billing::MaybeBilled, Err(not_answered(&error))),
        };
        let status = response.status();
        if !status.is_success() {
            let billing = billing_of(status);
            return ended(billing, Err(refused(response, self.key.as_ref()).await));
        }
        match self.record(response).await {
            Ok(record) => ended(Billing::Billed(Usage::default()), Ok(ProviderTask(record.id))),
            Err(error) => ended(Billing::MaybeBilled, Err(error)),
        }
    }

    async fn poll(&self, task: &ProviderTask, call: &JobCall, polls: u32) -> Result<Poll, ProviderError> {
        let url = self.url(&format!("/v1/jobs/{}", path_segment(&task.0)?));
        let response = self.get(&url).await?;
        let hint = retry_after(response.headers()).unwrap_or_default().min(LONGEST_POLL);
        let record = self.record(response).await?;
        record.into_poll(call.modality, poll_interval(polls).max(hint))
    }

    async fn download(&self, artifact: &Artifact, _call: &JobCall) -> Result<ByteStream, ProviderError> {
        let url = self.base.join(&artifact.source).map_err(|_| bad_response("The provider's link makes no sense."))?;
        let body = if url.origin() == self.base.origin() {
            self.get(url.as_str()).await?.into_body()
        } else {
            self.get_elsewhere(&url).await?
        };
        let body = with_idle_timeout(body, DOWNLOAD_IDLE);
        Ok(Box::pin(body.map(|chunk| chunk.map_err(|error| broken_body(&error)))))
    }

    async fn cancel(&self, task: &ProviderTask) -> Result<(), ProviderError> {
        let url = self.url(&format!("/v1/jobs/{}", path_segment(&task.0)?));
        let request = request(Method::DELETE, &url, self.key.as_ref(), Bytes::new()).ok_or_else(not_built)?;
        let response = self.client.send(request, ANSWER_TIMEOUT).await.map_err(|error| not_answered(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(refused(response, self.key.as_ref()).await) }
    }
}

/// After any 5xx but 503 the job may exist; and a 409 says that a submit with this key is still running.
fn billing_of(status: StatusCode) -> Billing {
    let clear = status.is_client_error() && status != StatusCode::CONFLICT && status != StatusCode::REQUEST_TIMEOUT;
    if clear || status == StatusCode::SERVICE_UNAVAILABLE { Billing::NotSent } else { Billing::MaybeBilled }
}

/// 0.5 s, then 1.5 times as long each time, up to 10 s.
fn poll_interval(polls: u32) -> Duration {
    FIRST_POLL.mul_f64(1.5_f64.powi(i32::try_from(polls.min(20)).unwrap_or(20))).min(LONGEST_POLL)
}

/// The upstream's id as one segment of a path.
fn path_segment(id: &str) -> Result<&str, ProviderError> {
    if is_path_segment(id) { Ok(id) } else { Err(bad_response("The provider's id of the job makes no sense.")) }
}

#[cfg(test)]
mod tests;
