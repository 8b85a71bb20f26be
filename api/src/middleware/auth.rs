//! Who is asking: an API key in `Authorization: Bearer` or `x-api-key`, or nobody where the route allows that.
//!
//! [`guard`] stands in front of every route of the table and enforces its [`Access`]; handlers of routes that need a key
//! read the [`Caller`]. A key that is missing, malformed, unknown, revoked or expired is 401; a database that does not
//! answer is 503, never 401. The first use of a rotated key ends the one before it. Tests at the end; the rest of it needs a database and is tested from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
        if self.key.is_of_sub_account() {
            JobsOf::SubAccount(&self.account_id)
        } else {
            JobsOf::Account(&self.account_id)
        }
    }
}

/// A key as the database knew it a moment ago.
pub struct KnownKey {
    key: Arc<ApiKey>,
    /// Whether a request has used it since.
    is_used: AtomicBool,
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
        Access::Key | Access::Manage => Some(Scope::Standard),
    };
    let Some(needed) = needed else { return Ok(next.run(request).await) };
    let mut key = authenticate(&api, request.headers(), false).await?;
    context.set_account(&key.account_id);
    if endpoint.access == Access::Manage {
        // A key that was just revoked must not make itself an heir in the seconds until everybody knows.
        key = authenticate(&api, request.headers(), true).await?;
        may_manage(&key)?;
    }
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

/// Whether the key may change keys, sub-accounts and budgets.
fn may_manage(key: &ApiKey) -> Result<(), Error> {
    let why = if key.is_of_sub_account() {
        "it belongs to a sub-account; only keys of the parent account may"
    } else if key.is_limited {
        "it has limits of its own (a cap, a rate, a list of models or an end), and could make itself a key without them"
    } else {
        return Ok(());
    };
    let message = format!("This key may not manage keys, sub-accounts or budgets: {why}. Nothing was done.");
    Err(Error::new(ErrorKind::ScopeExceeded, message))
}

/// The key that the request presents, if it is good; `afresh` asks the database whatever was remembered.
async fn authenticate(api: &ApiState, headers: &HeaderMap, afresh: bool) -> Result<Arc<ApiKey>, Error> {
    let text = credential(headers)?;
    let public_id = keys::public_id(text).ok_or_else(|| {
        refused("This is not a key of this gateway: its form or its checksum is wrong. Check that it was copied whole.")
    })?;
    let load = async {
        let found = api.app.store.key_by_public_id(public_id).await?;
        Ok::<_, Error>(found.map(|key| KnownKey { key: Arc::new(key), is_used: AtomicBool::new(false) }))
    };
    let keys = &api.keys;
    let known = if afresh { keys.get_afresh(public_id, load).await? } else { keys.get(public_id, load).await? };
    let known = known
        .filter(|known| keys::verify(&api.app.ring, text, &known.key.hash, &known.key.kid))
        .ok_or_else(|| refused("This key is not known here. Check that it belongs to this gateway."))?;
    if known.key.revoked_at.is_some() {
        return Err(refused("This key was revoked. Use another one."));
    }
    if known.key.expires_at.is_some_and(|end| end <= api.app.clock.now()) {
        return Err(refused("This key has expired. Use another one."));
    }
    if let Some(replaces) = &known.key.replaces
        && !known.is_used.swap(true, Ordering::Relaxed)
    {
        retire(api, &known.key.id, replaces, public_id).await;
    }
    Ok(Arc::clone(&known.key))
}

/// Ends the key that a rotated one replaces. It is tried once for each time that the row is read, so that neither a failure
/// nor a client that leaves is the last word.
async fn retire(api: &ApiState, key_id: &str, replaces: &str, public_id: &str) {
    match api.app.store.retire_replaced(key_id, replaces).await {
        Ok(mut died) => {
            tracing::info!(key = key_id, ?died, "a rotated key is used; those before it are revoked");
            died.push(public_id.to_owned());
            api.keys_changed(died).await;
        }
        Err(error) => {
            tracing::warn!(%error, key = key_id, "the key before a rotated one cannot be revoked yet; trying again");
        }
    }
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
