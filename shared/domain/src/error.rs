//! One error for everything a caller can be told: a kind, a sentence, and what to do about it.
//!
//! `api/src/error.rs` is the only place that turns a kind into a status, a type and a body.

use std::fmt;

/// What went wrong, as far as a caller is concerned. Each kind has exactly one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be understood or breaks a rule (400).
    InvalidRequest,
    /// The key is missing, malformed, unknown or revoked (401).
    Authentication,
    /// The key is valid and may not do this (403).
    ScopeExceeded,
    /// No model of that name (404).
    ModelNotFound,
    /// No such thing, or it belongs to somebody else (404).
    NotFound,
    /// The path exists, with another method (405).
    MethodNotAllowed,
    /// The client took too long to send its request (408).
    RequestTimeout,
    /// The request collides with another that is still running (409).
    Conflict,
    /// The body is larger than the route takes (413).
    PayloadTooLarge,
    /// The URI is longer than 8 kB (414).
    UriTooLong,
    /// The headers are larger than 32 kB (431).
    HeadersTooLarge,
    /// The body is not JSON, or is compressed (415).
    UnsupportedMediaType,
    /// The byte range lies outside the file (416).
    RangeNotSatisfiable,
    /// The idempotency key was used before with another body (422).
    IdempotencyMismatch,
    /// Too many requests (429).
    RateLimited,
    /// A bug on our side (500).
    Internal,
    /// The provider failed or answered nonsense (502).
    Provider,
    /// A part of the gateway is down or full (503).
    Unavailable,
    /// The provider did not answer in time (504).
    ProviderTimeout,
}

/// An error a caller may see. `message` is for people; it never holds secrets, prompts or internals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind, which decides the HTTP status.
    pub kind: ErrorKind,
    /// What happened, what was not done, and what to do next.
    pub message: String,
    /// The request field at fault, if one is.
    pub param: Option<String>,
    /// After how many seconds a retry makes sense, at most 120.
    pub retry_after: Option<u32>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None }
    }

    /// A 400 that names the field at fault.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(ErrorKind::InvalidRequest, message) }
    }

    /// A 404 for anything but a model.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A 500 whose text tells nothing but that it is our fault.
    pub fn internal() -> Self {
        Self::new(
            ErrorKind::Internal,
            "The gateway hit a bug and gave up on this request. Nothing was charged. \
             Retrying is safe with an Idempotency-Key; report the request id to your operator.",
        )
    }

    /// A 503 that says when to come back.
    pub fn unavailable(message: impl Into<String>, retry_after: u32) -> Self {
        Self::new(ErrorKind::Unavailable, message).retry_after(retry_after)
    }

    /// The same error with a hint when to retry, clamped to 1..=120 seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds.clamp(1, 120));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
