//! What a provider's failure is for the customer: what happened, what was charged, whether a retry is safe.

use aig_domain::budget::{Billing, Receipt};
use aig_domain::{Error, ErrorKind};
use aig_providers::{ProviderError, ProviderErrorKind};

/// The error for a call that got no answer.
pub(crate) fn refused(error: &ProviderError, receipt: &Receipt) -> Error {
    let charged = if *receipt.billing() == Billing::MaybeBilled {
        "The provider may have done the work; you were not charged. A retry is safe, but may make it do the work again."
    } else {
        "Nothing was charged, and a retry is safe."
    };
    of(error, charged)
}

/// The error for an answer that broke off.
pub(crate) fn broken(error: &ProviderError) -> Error {
    of(error, "The answer is not complete. A retry starts over.")
}

fn of(error: &ProviderError, charged: &str) -> Error {
    let kind = match error.kind {
        ProviderErrorKind::InvalidInput | ProviderErrorKind::ContentRefused => ErrorKind::InvalidRequest,
        ProviderErrorKind::NotFound => ErrorKind::ModelNotFound,
        ProviderErrorKind::RateLimited => ErrorKind::RateLimited,
        ProviderErrorKind::Timeout => ErrorKind::ProviderTimeout,
        ProviderErrorKind::Auth | ProviderErrorKind::Unavailable | ProviderErrorKind::BadResponse => {
            ErrorKind::Provider
        }
    };
    let message = match kind {
        ErrorKind::InvalidRequest | ErrorKind::ModelNotFound => format!("{} Nothing was charged.", error.message),
        _ => format!("{} {charged}", error.message),
    };
    let mapped = Error::new(kind, message);
    match (kind, error.retry_after) {
        (ErrorKind::RateLimited, wait) => {
            let seconds = wait.map_or(1, |wait| wait.as_secs());
            mapped.retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
        }
        _ => mapped,
    }
}

/// A provider that was silent for too long, or took too long in all.
pub(crate) fn too_slow(message: &str) -> Error {
    Error::new(ErrorKind::ProviderTimeout, format!("{message} The answer is not complete. A retry starts over."))
}

/// The gateway is going down.
pub(crate) fn restarting() -> Error {
    Error::unavailable("The gateway is restarting, and this answer is not complete. Try again.", 2)
}

/// An answer that is not what it should be.
pub(crate) fn nonsense(message: &str) -> Error {
    Error::new(ErrorKind::Provider, format!("{message} The answer is not complete. A retry starts over."))
}
