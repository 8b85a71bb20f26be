//! Adapters to AI providers: one folder each, behind the capabilities of [`capability`].
//!
//! A billable method takes a [`aig_domain::budget::Reservation`] by value and always gives back what the ledger needs to
//! settle it. Poll, cancel and download need none.

pub mod aigateway;
pub mod capability;
pub mod openai;
mod prices;
pub mod registry;
pub mod sandbox;
#[cfg(test)]
mod testing;
mod upstream;

pub use capability::{
    Artifact, ByteStream, ChatCall, ChatProvider, ChatRefusal, ChatReply, JobCall, JobProvider, Poll, ProviderError,
    ProviderErrorKind, ProviderTask, Submission,
};
pub use prices::PriceConfig;
pub use registry::{Models, ProviderConfig, ProviderKind, Quirk, Registry, RegistryError};
