//! Upstreams that speak OpenAI's chat completions.
//!
//! The body passes through; the answer comes back as it is. What fails is told apart by whether it may have been billed: a
//! request that was refused, or never sent, was not.

use std::time::Duration;

use aig_domain::Secret;
use aig_domain::budget::{Billing, OpenCall, Reservation};
use aig_fetch::{SendError, TrustedClient};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, StatusCode};

use crate::registry::{ProviderConfig, Quirk};
use crate::upstream::{broken_body, not_answered, not_built, refused, request};
use crate::{ChatCall, ChatProvider, ChatRefusal, ChatReply};

/// How long an upstream may take until its answer begins. A plain call's begins when all of it is done.
const HEAD_TIMEOUT: Duration = Duration::from_mins(10);

/// One upstream.
pub struct Openai {
    url: String,
    key: Option<Secret>,
    stream_options: bool,
    /// OpenAI's own models refuse the old name of the output limit, others know only that.
    is_original: bool,
    client: TrustedClient,
}

impl Openai {
    /// The upstream of `config`.
    pub fn new(config: ProviderConfig, client: TrustedClient) -> Self {
        Self {
            url: format!("{}/chat/completions", config.base_url.as_str().trim_end_matches('/')),
            is_original: config.quirks.contains(&Quirk::MaxCompletionTokens)
                || config.base_url.host_str().is_some_and(is_original),
            key: config.api_key,
            stream_options: !config.quirks.contains(&Quirk::NoStreamOptions),
            client,
        }
    }
}

#[async_trait]
impl ChatProvider for Openai {
    fn takes_stream_options(&self) -> bool {
        self.stream_options
    }

    fn output_limit_name(&self) -> &'static str {
        if self.is_original { "max_completion_tokens" } else { "max_tokens" }
    }

    async fn chat(&self, reservation: Reservation, call: ChatCall) -> Result<ChatReply, ChatRefusal> {
        let body = serde_json::to_vec(&*call.body).ok().map(Bytes::from);
        let built = body.and_then(|body| request(Method::POST, &self.url, self.key.as_ref(), body));
        let Some(mut request) = built else {
            return Err(ChatRefusal { receipt: reservation.receipt(Billing::NotSent), error: not_built() });
        };
        if call.stream {
            request.headers_mut().insert(http::header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        }
        let response = match self.client.send(request, HEAD_TIMEOUT).await {
            Ok(response) => response,
            Err(error) => {
                let sent = !matches!(error, SendError::NotSent(_));
                let billing = if sent { Billing::MaybeBilled } else { Billing::NotSent };
                return Err(ChatRefusal { receipt: reservation.receipt(billing), error: not_answered(&error) });
            }
        };
        if !response.status().is_success() {
            let billing = billing_of(response.status());
            let error = refused(response, self.key.as_ref()).await;
            return Err(ChatRefusal { receipt: reservation.receipt(billing), error });
        }
        let body = response.into_body().map(|chunk| chunk.map_err(|error| broken_body(&error)));
        Ok(ChatReply { open: OpenCall::new(reservation), body: Box::pin(body) })
    }
}

/// Whether OpenAI's own models answer there.
fn is_original(host: &str) -> bool {
    ["openai.com", "openai.azure.com"].into_iter().any(|own| host == own || host.ends_with(&format!(".{own}")))
}

/// A refusal is not billed, nor is a failure that the provider itself reports. What a proxy in between says (502, 504, and
/// Cloudflare's 520 to 527) leaves open whether the work was done.
fn billing_of(status: StatusCode) -> Billing {
    match status.as_u16() {
        502 | 504 | 520..=527 => Billing::MaybeBilled,
        // It did not begin with it.
        429 | 503 => Billing::NotSent,
        _ => Billing::Refused,
    }
}

#[cfg(test)]
mod tests;
