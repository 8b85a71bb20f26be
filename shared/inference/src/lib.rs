//! The life of a chat call: resolve the model, reserve, call the provider, relay its answer, settle.
//!
//! [`Chat::complete`] is the door; [`resolve`] serves the job routes, too. The relay itself is pure ([`relay`]); the async
//! shell around it keeps time and notices who leaves ([`stream`]).

mod bill;
mod bound;
mod chat;
mod errors;
mod plain;
mod relay;
mod resolve;
mod stream;

pub use bill::Charged;
pub use bound::job_cost;
pub use chat::{Chat, ChatAnswer, ChatBody, ChatConfig, ChatRequest, Events};
pub use resolve::{Defaults, resolve};
