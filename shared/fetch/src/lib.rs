//! HTTP out. Two clients, for two kinds of URL:
//!
//! - [`TrustedClient`] for the operator's own URLs (providers): pooled, cheap, and precise about whether a failed request
//!   was sent.
//! - [`UntrustedFetcher`] for URLs that tenants gave: no redirects, no proxies, public addresses only, everything bounded.
//!
//! [`sse`] splits streams of server-sent events.

pub mod policy;
pub mod sse;
mod trusted;
mod untrusted;

pub use policy::{UrlPolicy, UrlRefused};
pub use trusted::{BodyError, BodyStream, SendError, TrustedClient, TrustedConfig, read_bounded, with_idle_timeout};
pub use untrusted::{Answer, FetchError, UntrustedFetcher};
