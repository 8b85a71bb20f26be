//! One error for everything a caller can be told: a kind, a sentence, and what to do about it.
//!
//! [`ErrorKind::status`] is the only table of statuses, `api/src/error.rs` the only one of types and bodies.

use std::fmt;

use crate::caps::Exhausted;
use crate::caps::Payer;
use crate::caps::ScopeKind::{Key, SubAccount};
use crate::{Millis, Month, Nano};

/// What went wrong, as far as a caller is concerned. Each kind has exactly one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be understood or breaks a rule (400).
    InvalidRequest,
    /// The key is missing, malformed, unknown or revoked (401).
    Authentication,
    /// A cap stands in the way (402).
    BudgetExceeded,
    /// A model without a price, where a cap has to hold (400).
    ModelNotPriced,
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
    /// The cap that stands in the way, if one does.
    pub budget: Option<Box<BudgetDetail>>,
}

/// A cap that a request did not fit under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetDetail {
    /// Whose cap, how it stands, and what the request could cost.
    pub exhausted: Exhausted,
    /// Whether that is none of the caller's business: a sub-account is told nothing about the account above it.
    pub is_hidden: bool,
    /// When the period ends, and the cap has room again.
    pub resets_at: Millis,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None, budget: None }
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

    /// The 402 of a request that came at `now`, for which `payer` was to pay, and that does not fit under a cap.
    pub fn budget(exhausted: Exhausted, payer: &Payer, now: Millis) -> Self {
        let month = Month::of(now);
        let is_hidden = payer.sub_account_id.is_some() && !matches!(exhausted.scope.kind, SubAccount | Key);
        let message = format!(
            "{} It was not sent to the provider, and nothing was charged. {}",
            why(&exhausted, is_hidden),
            when(&exhausted, is_hidden, month)
        );
        let detail = BudgetDetail { exhausted, is_hidden, resets_at: month.ends() };
        Self { budget: Some(Box::new(detail)), ..Self::new(ErrorKind::BudgetExceeded, message) }
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

fn why(exhausted: &Exhausted, is_hidden: bool) -> String {
    let Exhausted { scope, balance, wanted } = exhausted;
    let (cap, left) = (balance.cap.unwrap_or_default().cents_json(), balance.left().unwrap_or_default());
    let under_way = balance.held.plus(balance.uncertain);
    if is_hidden {
        "A monthly cap of the account above this key leaves no room for this request.".into()
    } else if left > Nano::ZERO {
        let (wanted, left) = (wanted.cents_json(), left.cents_json());
        format!(
            "This request could cost up to {wanted} cents, and {left} of {cap} are left under the monthly cap of the {scope}."
        )
    } else if under_way > Nano::ZERO {
        let (spent, under_way) = (balance.spent.cents_json(), under_way.cents_json());
        format!(
            "The monthly cap of the {scope} is reached: of {cap} cents, {spent} are spent, and {under_way} are promised to requests \
             under way or in doubt."
        )
    } else {
        format!("The monthly cap of the {scope} is reached: of {cap} cents, {} are spent.", balance.spent.cents_json())
    }
}

fn when(exhausted: &Exhausted, is_hidden: bool, month: Month) -> String {
    let Exhausted { balance, wanted, .. } = exhausted;
    if !is_hidden && balance.cap.is_some_and(|cap| *wanted > cap) {
        return "It does not fit under that cap at all: ask for less, or raise the cap.".into();
    }
    let sooner =
        if !is_hidden && balance.held > Nano::ZERO { " when requests under way turn out cheaper," } else { "" };
    format!("The cap has room again{sooner} on {}-01 (UTC), or when it is raised.", month.next())
}

impl ErrorKind {
    /// Its HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ModelNotPriced => 400,
            Self::Authentication => 401,
            Self::BudgetExceeded => 402,
            Self::ScopeExceeded => 403,
            Self::ModelNotFound | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::IdempotencyMismatch => 422,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::Provider => 502,
            Self::Unavailable => 503,
            Self::ProviderTimeout => 504,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
