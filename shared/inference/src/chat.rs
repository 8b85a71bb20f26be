//! The door to chat completions.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aig_domain::budget::Reservation;
use aig_domain::caps::Payer;
use aig_domain::catalog::Model;
use aig_domain::json::RawObject;
use aig_domain::price::Price;
use aig_domain::{Clock, Error};
use aig_providers::{ChatCall, ChatProvider, ChatRefusal, ChatReply, ProviderErrorKind, Registry};
use aig_store::Store;
use bytes::Bytes;
use futures_util::Stream;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bill::{Bill, Books, Charged, Database, Terms};
use crate::bound::{bound, check_spelling, read_bytes, set_limit};
use crate::{errors, plain, stream};

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
    /// The most tokens that a call below a cap may write when its client sets no limit.
    pub capped_max_tokens: u64,
}

/// One request.
#[derive(Debug)]
pub struct ChatRequest {
    /// The body as the client sent it.
    pub body: RawObject,
    /// The model, which the caller may use.
    pub model: Model,
    /// The gateway's id of the request.
    pub request_id: String,
    /// Who pays.
    pub payer: Payer,
    /// Whether a cap may stand above it: then the most that it may cost is reserved first.
    pub is_capped: bool,
    /// The process that makes the call, by the id of its lease.
    pub process: String,
}

/// The answer.
pub struct ChatAnswer {
    /// What the client gets.
    pub body: ChatBody,
    /// What the client should know of what was changed in its request.
    pub warning: Option<String>,
}

/// What the client gets.
pub enum ChatBody {
    /// The provider's JSON with the cost in its usage, and what was charged.
    Json(Bytes, Charged),
    /// The provider's events, with usage before the end.
    Stream(Events),
}

/// Chat completions. Cheap to clone.
#[derive(Clone)]
pub struct Chat {
    registry: Arc<Registry>,
    books: Arc<dyn Books>,
    config: ChatConfig,
    /// Calls under way, each until its end is written.
    calls: TaskTracker,
}

/// One call on its way, in a task that outlives its client.
pub(crate) struct Call {
    pub(crate) provider: Arc<dyn ChatProvider>,
    pub(crate) bill: Bill,
    pub(crate) config: ChatConfig,
    pub(crate) request: ChatCall,
    /// Whether the client asked for the usage of its stream in OpenAI's form.
    pub(crate) include_usage: bool,
    /// The size of the request, for the estimate when no usage comes.
    pub(crate) request_bytes: usize,
}

impl Chat {
    /// Puts it together from its parts. What outlives its call runs on `tracker`.
    pub fn new(
        registry: Arc<Registry>,
        store: Store,
        clock: Arc<dyn Clock>,
        config: ChatConfig,
        tracker: TaskTracker,
    ) -> Self {
        let books = Arc::new(Database { store, clock, tracker });
        Self { registry, books, config, calls: TaskTracker::new() }
    }

    /// Waits until the calls that are under way have ended and are in the books. No further ones may begin.
    pub async fn ended(&self) {
        self.calls.close();
        self.calls.wait().await;
    }

    /// How many calls are under way.
    pub fn under_way(&self) -> usize {
        self.calls.len()
    }

    /// Completes a chat. What is not complete when `must_end` is cancelled ends with an error.
    ///
    /// When the caller goes away (drops the future or the stream), the upstream request is aborted and the call settled.
    ///
    /// # Errors
    /// What the customer should be told. Once a stream has begun, errors come in it.
    pub async fn complete(&self, request: ChatRequest, must_end: CancellationToken) -> Result<ChatAnswer, Error> {
        if self.calls.is_closed() {
            return Err(errors::restarting());
        }
        let (call, warning) = self.prepare(request)?;
        let body = if call.request.stream {
            ChatBody::Stream(stream::run(call, must_end, &self.calls).await?)
        } else {
            let (body, charged) = plain::run(call, must_end, &self.calls).await?;
            ChatBody::Json(body, charged)
        };
        Ok(ChatAnswer { body, warning })
    }

    /// Finds the model's provider and makes its body: only `model`, `stream_options` and, below a cap, a limit on the output differ from
    /// what the client sent.
    fn prepare(&self, request: ChatRequest) -> Result<(Call, Option<String>), Error> {
        let ChatRequest { mut body, model, request_id, payer, is_capped, process } = request;
        check_spelling(&body)?;
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
        let mut warning = None;
        let mut reserved = None;
        if is_capped {
            let name = provider.output_limit_name();
            let bound = bound(&body, &model, name, self.config.capped_max_tokens)?;
            let limit = bound.output_limit;
            set_limit(&mut body, name, raw(&limit)?);
            if !bound.is_asked {
                warning =
                    Some(format!("{name} was set to {limit}: a cap stands above this request, and it set no limit"));
            }
            reserved = Some(bound.amount);
        }
        let request_bytes = read_bytes(&body);
        let terms = Terms {
            request_id: request_id.clone(),
            payer,
            model: model.id,
            provider: model.provider,
            price: model.price.filter(Price::prices_chat),
            bound: reserved,
            owner: process,
            created_at: self.books.now(),
            started: Instant::now(),
            longest: self.config.total,
        };
        let bill = Bill { books: Arc::clone(&self.books), terms };
        let request = ChatCall { body: Arc::new(body), stream, request_id };
        Ok((Call { provider, bill, config: self.config, request, include_usage, request_bytes }, warning))
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

/// The status on record for a client that left before its answer: what proxies log for that.
pub(crate) const CLIENT_LEFT: u16 = 499;

/// Tokens by size, when the provider did not count: a quarter of the bytes, rounded up.
pub(crate) fn estimate(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}
