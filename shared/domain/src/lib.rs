//! Pure rules of the gateway: no I/O, no async, no clock but the one passed in.
//!
//! Everything above this crate agrees on these types: what a job is and which states it may take
//! ([`job`]), what a task is ([`task`]), what a reservation is worth ([`budget`]), how keys, URLs and
//! webhooks are signed ([`keys`], [`signing`]), what work costs ([`price`]), and which kinds of error exist
//! ([`error`]).

pub mod budget;
pub mod caps;
pub mod catalog;
pub mod clock;
pub mod crypto;
pub mod error;
pub mod id;
pub mod job;
pub mod job_request;
pub mod json;
pub mod keys;
pub mod links;
pub mod money;
pub mod month;
pub mod price;
pub mod retry;
pub mod secret;
pub mod signing;
pub mod task;
pub mod tenant;
pub mod webhook;

pub use clock::{Clock, Millis};
pub use error::{Error, ErrorKind};
pub use money::Nano;
pub use month::Month;
pub use secret::Secret;
