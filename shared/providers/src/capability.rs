//! What a provider can do for us, and how it may fail.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aig_domain::budget::{OpenCall, Receipt, Reservation};
use aig_domain::catalog::Modality;
use aig_domain::job::JobError;
use aig_domain::json::RawObject;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Map, Value};

/// Bytes as they come; ends at the first error.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, ProviderError>> + Send>>;

/// Why a provider did not do what it was asked. The message is for the customer: it holds no key and no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderError {
    /// What kind of failure, which decides about retries and about the customer's status.
    pub kind: ProviderErrorKind,
    /// What happened, in a sentence.
    pub message: String,
    /// When the provider says a retry makes sense.
    pub retry_after: Option<Duration>,
}

/// How a provider may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderErrorKind {
    /// It refused the input; a retry cannot help.
    InvalidInput,
    /// It refused the content; a retry cannot help.
    ContentRefused,
    /// It does not know the model, or the task any more.
    NotFound,
    /// It does not accept the operator's key.
    Auth,
    /// It asks us to slow down.
    RateLimited,
    /// It is down, or cannot be reached, or the connection broke.
    Unavailable,
    /// It did not answer in time.
    Timeout,
    /// Its answer makes no sense.
    BadResponse,
}

impl ProviderError {
    /// A failure of `kind` that says `message`.
    pub fn new(kind: ProviderErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        use ProviderErrorKind::{BadResponse, RateLimited, Timeout, Unavailable};
        matches!(self.kind, RateLimited | Unavailable | Timeout | BadResponse)
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ProviderError {}

/// One chat completion to be sent.
#[derive(Clone, Debug)]
pub struct ChatCall {
    /// The body for the provider: the client's members verbatim, `model` already the provider's own name.
    pub body: Arc<RawObject>,
    /// Whether the answer is a stream of server-sent events.
    pub stream: bool,
    /// The gateway's id of the request.
    pub request_id: String,
}

/// A provider's answer to a chat call, begun with a 2xx.
pub struct ChatReply {
    /// The rest of the call: the relay turns it into a receipt when the body has ended.
    pub open: OpenCall,
    /// The body: JSON, or server-sent events in chunks of any size.
    pub body: ByteStream,
}

/// A chat call that got no answer worth relaying.
#[derive(Debug)]
pub struct ChatRefusal {
    /// What the ledger needs.
    pub receipt: Receipt,
    /// Why.
    pub error: ProviderError,
}

/// A provider of chat completions in the OpenAI dialect.
#[async_trait]
pub trait ChatProvider: Send + Sync {
    /// Whether it takes `stream_options`, and so can be asked for the usage of a stream.
    fn takes_stream_options(&self) -> bool;

    /// What it calls the limit on the tokens of an answer.
    fn output_limit_name(&self) -> &'static str {
        "max_tokens"
    }

    /// Sends `call` and waits for the head of the answer. Dropping the reply's body aborts the upstream request.
    async fn chat(&self, reservation: Reservation, call: ChatCall) -> Result<ChatReply, ChatRefusal>;
}

/// The provider's own id of a piece of work. Opaque to everybody else; at most 1 kB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderTask(pub String);

/// A job as a provider sees it.
#[derive(Clone, Debug)]
pub struct JobCall {
    /// Our id of the job, which is also the idempotency key of its submit.
    pub job_id: String,
    /// What to make.
    pub modality: Modality,
    /// The provider's own name of the model.
    pub model: String,
    /// The customer's request without `model`, `webhook_url` and `metadata`; `duration` is already checked and filled in.
    pub params: Map<String, Value>,
    /// How many submits of this job failed before this one.
    pub attempt: u32,
}

/// How a submit ended. `receipt` says whether it may have been billed: `NotSent` means that the provider provably did not
/// take the job, so that it may be submitted again; with `MaybeBilled` and an error its outcome is unknown.
#[derive(Debug)]
pub struct Submission {
    /// What the ledger needs.
    pub receipt: Receipt,
    /// The provider's id of the work, or why there is none.
    pub outcome: Result<ProviderTask, ProviderError>,
}

/// What a poll tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Poll {
    /// Not yet; ask again after this long.
    Pending {
        /// Per cent, when the provider tells.
        progress: Option<i64>,
        /// When to ask again.
        after: Duration,
    },
    /// There is a result to download.
    Done(Artifact),
    /// The provider ended the work without a result.
    Failed(JobError),
}

/// A result that a provider holds for us.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Under which name we keep it: `video.mp4`, `music.wav`, `model.glb`.
    pub filename: String,
    /// Its media type.
    pub content_type: String,
    /// Seconds, where that makes sense.
    pub duration: Option<f64>,
    /// Such as `320x180`, where that makes sense.
    pub resolution: Option<String>,
    /// How the adapter finds it again in [`JobProvider::download`]: a URL, or anything else.
    pub source: String,
}

/// A provider of work that takes minutes.
#[async_trait]
pub trait JobProvider: Send + Sync {
    /// Whether a second submit with the same job id gives the first one's work instead of new work.
    fn idempotent_submit(&self) -> bool;

    /// Submits the job. Sends `call.job_id` as the idempotency key.
    async fn submit(&self, reservation: Reservation, call: &JobCall) -> Submission;

    /// Asks how the work stands. `polls` is how often it was asked before.
    async fn poll(&self, task: &ProviderTask, call: &JobCall, polls: u32) -> Result<Poll, ProviderError>;

    /// The bytes of a result. The caller bounds size and time.
    async fn download(&self, artifact: &Artifact, call: &JobCall) -> Result<ByteStream, ProviderError>;

    /// Tells the provider to stop, as a favour: nobody waits for it to work.
    async fn cancel(&self, task: &ProviderTask) -> Result<(), ProviderError>;
}
