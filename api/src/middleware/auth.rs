//! Who is asking: an API key in `Authorization: Bearer` or `x-api-key`, or nobody where the route allows that.
//!
//! [`guard`] stands in front of every route of the table and enforces its [`Access`]; handlers of routes that need a key
//! read the [`Caller`]. A key that is missing, malformed, unknown or revoked is 401; a database that does not answer is
//! 503, never 401. Tests at the end; the rest of it needs a database and is tested from outside.

use std::sync::Arc;

use aig_domain::{Error, ErrorKind, keys};
use aig_store::{ApiKey, JobsOf, Scope};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::context::Context;
use super::rate_limit;
use crate::error::ApiError;
use crate::router::{Access, Endpoint};
use crate::state::{Api, ApiState};

/// Headers by which a reverse proxy gives itself away: what it forwards is not a local caller.
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// An authenticated key.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose key it is: an account, which sees what its sub-accounts have, or a sub-account.
    pub account_id: String,
    /// The key itself.
    pub key: Arc<ApiKey>,
}

impl Caller {
    /// The jobs it sees in lists.
    pub fn jobs(&self) -> JobsOf<'_> {
        if self.account_id == self.key.payer_id {
            JobsOf::Account(&self.account_id)
        } else {
            JobsOf::SubAccount(&self.account_id)
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Only a route whose table row asks for no key gets here without one, and that is a bug.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| ApiError(Error::internal()))
    }
}

/// Lets a request through to `endpoint` when it may.
pub async fn guard(
    State((api, endpoint)): State<(Api, &'static Endpoint)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let context = request.extensions().get::<Arc<Context>>().cloned().unwrap_or_default();
    context.set_route(endpoint.path);
    let needed = match endpoint.access {
        Access::Open => None,
        Access::LocalOrAdmin if is_local(&context, request.headers()) => None,
        Access::LocalOrAdmin => Some(Scope::Admin),
        Access::Key => Some(Scope::Standard),
    };
    let Some(needed) = needed else { return Ok(next.run(request).await) };
    let key = authenticate(&api, request.headers()).await?;
    context.set_account(&key.account_id);
    if needed == Scope::Admin && key.scope != Scope::Admin {
        let message = "This key may not do this; it takes the admin key. Nothing was done.";
        return Err(Error::new(ErrorKind::ScopeExceeded, message).into());
    }
    request.extensions_mut().insert(Caller { account_id: key.account_id.clone(), key: Arc::clone(&key) });
    if endpoint.costs_money {
        return Ok(rate_limit::limited(&api, &key, request, next).await);
    }
    Ok(next.run(request).await)
}

async fn authenticate(api: &ApiState, headers: &HeaderMap) -> Result<Arc<ApiKey>, Error> {
    let text = credential(headers)?;
    let public_id = keys::public_id(text).ok_or_else(|| {
        refused("This is not a key of this gateway: its form or its checksum is wrong. Check that it was copied whole.")
    })?;
    let found = api.keys.get(public_id, api.app.store.key_by_public_id(public_id)).await?;
    let key = found
        .filter(|key| keys::verify(&api.app.ring, text, &key.hash, &key.kid))
        .ok_or_else(|| refused("This key is not known here. Check that it belongs to this gateway."))?;
    if key.revoked_at.is_some() {
        return Err(refused("This key was revoked. Use another one."));
    }
    Ok(key)
}

/// The key that a request presents.
fn credential(headers: &HeaderMap) -> Result<&str, Error> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let value = match (given.next(), given.next()) {
        (Some(_), Some(_)) => return Err(refused("The header Authorization is given more than once.")),
        (Some(value), None) => value,
        (None, _) => {
            let mut given = headers.get_all("x-api-key").iter();
            return match (given.next().and_then(|value| value.to_str().ok()), given.next()) {
                (Some(key), None) => Ok(key.trim()),
                _ => Err(refused("No API key was given. Send `Authorization: Bearer sk-aig-…`.")),
            };
        }
    };
    let (scheme, key) = value.to_str().ok().and_then(|text| text.trim().split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(key.trim())
    } else {
        Err(refused("The header Authorization must read `Bearer sk-aig-…`."))
    }
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Authentication, format!("{message} Nothing was done."))
}

/// Whether the request was made on this machine, and not passed on by a proxy that runs here.
fn is_local(context: &Context, headers: &HeaderMap) -> bool {
    context.peer.is_some_and(|ip| ip.to_canonical().is_loopback())
        && !FORWARDED.into_iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        for pairs in [
            &[("authorization", "Bearer k")][..],
            &[("authorization", "bearer   k ")],
            &[("x-api-key", "k")],
            &[("authorization", "Bearer k"), ("x-api-key", "other")],
        ] {
            assert_eq!(credential(&headers(pairs)).unwrap(), "k", "{pairs:?}");
        }
    }

    #[test]
    fn what_is_no_credential_is_401() {
        for pairs in [
            &[][..],
            &[("authorization", "")],
            &[("authorization", "Bearer")],
            &[("authorization", "Basic eDp5")],
            &[("authorization", "sk-aig-x")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer a")],
            &[("x-api-key", "a"), ("x-api-key", "a")],
            &[("cookie", "key=sk-aig-x")],
        ] {
            assert_eq!(credential(&headers(pairs)).unwrap_err().kind, ErrorKind::Authentication, "{pairs:?}");
        }
    }

    #[test]
    fn a_local_caller_is_on_this_machine_and_not_a_proxy() {
        let from = |ip: &str| Context::new("req_1".into(), Some(ip.parse().unwrap()));
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(&from(ip), &HeaderMap::new()), "{ip}");
        }
        assert!(!is_local(&from("10.0.0.1"), &HeaderMap::new()));
        assert!(!is_local(&from("127.0.0.1"), &headers(&[("x-forwarded-for", "203.0.113.9")])));
        assert!(!is_local(&Context::default(), &HeaderMap::new()));
    }
}
