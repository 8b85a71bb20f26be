//! The door to chat completions.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aig_domain::Error;
use aig_domain::budget::Reservation;
use aig_domain::catalog::Modality;
use aig_domain::json::RawObject;
use aig_providers::{ChatCall, ChatProvider, ChatRefusal, ChatReply, ProviderErrorKind, Registry};
use aig_store::Ledger;
use bytes::Bytes;
use futures_util::Stream;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::resolve::{Defaults, resolve};
use crate::{plain, stream};

/// The events of a stream: bytes to pass on, and at most one error, which is the last.
pub type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// How long a call may be silent, and take.
#[derive(Clone, Copy, Debug)]
pub struct ChatConfig {
    /// After this much silence the client of a stream gets a comment.
    pub keep_alive: Duration,
    /// After this much silence of the upstream a call is given up.
    pub idle: Duration,
    /// The longest call.
    pub total: Duration,
    /// A stream begins at the latest after this, whether the upstream's did or not.
    pub head: Duration,
    /// A client that takes nothing for this long is cut off.
    pub slow_reader: Duration,
}

/// One request.
#[derive(Debug)]
pub struct ChatRequest {
    /// The body as the client sent it.
    pub body: RawObject,
    /// The gateway's id of the request.
    pub request_id: String,
    /// Who asks.
    pub account_id: String,
    /// With which key.
    pub key_id: String,
    /// The label of its cost.
    pub tag: Option<String>,
}

/// The answer.
pub enum ChatAnswer {
    /// The provider's JSON, as it came.
    Json(Bytes),
    /// The provider's events, with usage before the end.
    Stream(Events),
}

/// Chat completions. Cheap to clone.
#[derive(Clone)]
pub struct Chat {
    registry: Arc<Registry>,
    ledger: Ledger,
    defaults: Arc<Defaults>,
    config: ChatConfig,
    tracker: TaskTracker,
}

/// One call on its way, in a task that outlives its client.
pub(crate) struct Call {
    pub(crate) provider: Arc<dyn ChatProvider>,
    pub(crate) ledger: Ledger,
    pub(crate) config: ChatConfig,
    pub(crate) request: ChatCall,
    /// Whether the client asked for the usage of its stream in OpenAI's form.
    pub(crate) include_usage: bool,
    /// The size of the request, for the estimate when no usage comes.
    pub(crate) request_bytes: usize,
}

impl Chat {
    /// Puts it together from its parts. Calls run on `tracker`.
    pub fn new(
        registry: Arc<Registry>,
        ledger: Ledger,
        defaults: Arc<Defaults>,
        config: ChatConfig,
        tracker: TaskTracker,
    ) -> Self {
        Self { registry, ledger, defaults, config, tracker }
    }

    /// Completes a chat. What is not complete when `must_end` is cancelled ends with an error.
    ///
    /// When the caller goes away (drops the future or the stream), the upstream request is aborted and the call settled.
    ///
    /// # Errors
    /// What the customer should be told. Once a stream has begun, errors come in it.
    pub async fn complete(&self, request: ChatRequest, must_end: CancellationToken) -> Result<ChatAnswer, Error> {
        let call = self.prepare(request)?;
        let reservation = self.ledger.reserve_call(&call.request.request_id)?;
        if call.request.stream {
            stream::run(call, reservation, must_end, &self.tracker).await.map(ChatAnswer::Stream)
        } else {
            plain::run(call, reservation, must_end, &self.tracker).await.map(ChatAnswer::Json)
        }
    }

    /// Finds the provider and makes its body: only `model` and `stream_options` differ from what the client sent.
    fn prepare(&self, request: ChatRequest) -> Result<Call, Error> {
        let ChatRequest { mut body, request_id, .. } = request;
        let asked: Option<String> = body.read("model", "a string")?;
        let model = resolve(&self.registry, &self.defaults, Modality::Text, asked.as_deref())?;
        let provider = self.registry.chat(&model.provider).ok_or_else(Error::internal)?;
        let stream = body.read::<bool>("stream", "true or false")?.unwrap_or(false);
        let include_usage = stream && wants_usage(&body)?;
        body.set("model", raw(&serde_json::Value::from(model.upstream_name()))?);
        if stream && provider.takes_stream_options() {
            let mut options: RawObject = body.read("stream_options", "an object")?.unwrap_or_default();
            options.set("include_usage", raw(&serde_json::Value::Bool(true))?);
            body.set("stream_options", raw(&options)?);
        } else if !provider.takes_stream_options() {
            body.remove("stream_options");
        }
        let request_bytes = body.get("messages").map_or(0, |messages| messages.get().len());
        let request = ChatCall { body: Arc::new(body), stream, request_id };
        Ok(Call { provider, ledger: self.ledger.clone(), config: self.config, request, include_usage, request_bytes })
    }
}

impl Call {
    /// Calls the provider; once more when the first call provably never reached it.
    pub(crate) async fn send(&self, reservation: Reservation) -> Result<ChatReply, ChatRefusal> {
        match self.provider.chat(reservation, self.request.clone()).await {
            Err(ChatRefusal { receipt, error }) if error.kind == ProviderErrorKind::Unavailable => {
                match receipt.retry() {
                    Ok(reservation) => self.provider.chat(reservation, self.request.clone()).await,
                    Err(receipt) => Err(ChatRefusal { receipt, error }),
                }
            }
            answer => answer,
        }
    }
}

fn wants_usage(body: &RawObject) -> Result<bool, Error> {
    let options: Option<RawObject> = body.read("stream_options", "an object")?;
    Ok(match options {
        Some(options) => options.read::<bool>("include_usage", "true or false")?.unwrap_or(false),
        None => false,
    })
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value).map_err(|_| Error::internal())
}

/// Tokens by size, when the provider did not count: a quarter of the bytes, rounded up.
pub(crate) fn estimate(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}
