//! What is known about a request while it runs; an extension of the request, shared by all its layers.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use http::request::Parts;

/// One request. The route and the account become known on the way in and are read by the access log at the end, also
/// when the handler panicked or its client left.
#[derive(Debug, Default)]
pub struct Context {
    /// `req_…`, always ours.
    pub request_id: String,
    /// The address at the other end of the connection.
    pub peer: Option<IpAddr>,
    route: OnceLock<&'static str>,
    account: OnceLock<String>,
}

impl Context {
    /// A request that has just arrived.
    pub fn new(request_id: String, peer: Option<IpAddr>) -> Self {
        Self { request_id, peer, ..Self::default() }
    }

    /// The pattern of the route that serves the request.
    pub fn set_route(&self, pattern: &'static str) {
        // A request has one route; the first call stays.
        self.route.get_or_init(|| pattern);
    }

    /// The account that is asking.
    pub fn set_account(&self, account_id: &str) {
        self.account.get_or_init(|| account_id.to_owned());
    }

    /// The route's pattern; `unmatched` when there is none.
    pub fn route(&self) -> &'static str {
        self.route.get().copied().unwrap_or("unmatched")
    }

    /// The account; empty when nobody was authenticated.
    pub fn account(&self) -> &str {
        self.account.get().map_or("", String::as_str)
    }
}

/// The context of a request, for handlers.
#[derive(Clone, Debug)]
pub struct Ctx(pub Arc<Context>);

impl<S: Sync> FromRequestParts<S> for Ctx {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Arc<Context>>().cloned().unwrap_or_default()))
    }
}
