//! The one table of routes. The axum router, the OpenAPI document and the tests that walk over every route are made
//! from it, so that none of them can forget one. Tests: `router/tests.rs`.

use std::sync::Arc;

use aig_domain::{Error, ErrorKind};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::{Method, Uri};

use crate::error::ApiError;
use crate::middleware::auth::guard;
use crate::openapi::Doc;
use crate::routes::{
    audio_music, balance, budgets, chat, files, jobs, keys, models, ops, requests, sub_accounts, three_d, usage,
    videos, webhook_secret,
};
use crate::state::Api;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Whoever has a key.
    Key,
    /// Whoever has a key without limits that is no sub-account's: such a key may change keys, sub-accounts and budgets.
    Manage,
    /// A caller on this machine, or whoever has the admin key.
    LocalOrAdmin,
}

/// A kind of id in a path: what a test must try with the ids of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// `job_…`
    Job,
    /// The name of a job's result file.
    File,
    /// `sa_…`
    SubAccount,
    /// `key_…`
    ApiKey,
    /// `bud_…`
    Budget,
    /// `req_…`
    Request,
    /// A model's id, which is the same for everybody.
    Model,
}

/// One route.
pub struct Endpoint {
    /// The method; `GET` answers `HEAD` too.
    pub method: Method,
    /// The path as axum matches it.
    pub path: &'static str,
    /// The path in the OpenAPI document.
    pub openapi_path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Whether it can cost money.
    pub costs_money: bool,
    /// The ids in its path, in order.
    pub ids: &'static [IdKind],
    /// Its page in the OpenAPI document.
    pub doc: fn() -> Doc,
    handler: fn(MethodFilter) -> MethodRouter<Api>,
}

/// One row of the table. The handler's module is named once: its `handler` and its documentation come from there.
macro_rules! endpoint {
    ($method:ident $path:literal, $access:ident, $money:literal, [$($id:ident),*], $($module:ident)::+) => {
        endpoint!($method $path as $path, $access, $money, [$($id),*], $($module)::+)
    };
    ($method:ident $path:literal as $openapi:literal, $access:ident, $money:literal, [$($id:ident),*], $($module:ident)::+) => {
        Endpoint {
            method: Method::$method,
            path: $path,
            openapi_path: $openapi,
            access: Access::$access,
            costs_money: $money,
            ids: &[$(IdKind::$id),*],
            doc: Doc::of::<$($module)::+::__path_handler>,
            handler: |method| on(method, $($module)::+::handler),
        }
    };
}

/// Every route. Columns: method and path, access, costs money, ids, module of the handler.
#[rustfmt::skip]
pub static ENDPOINTS: [Endpoint; 39] = [
    endpoint!(POST "/v1/chat/completions", Key, true, [], chat::create),
    endpoint!(GET "/v1/models", Key, false, [], models::list),
    endpoint!(GET "/v1/models/{*id}" as "/v1/models/{id}", Key, false, [Model], models::get),
    endpoint!(POST "/v1/videos/generations", Key, true, [], videos::create),
    endpoint!(POST "/v1/audio/music", Key, true, [], audio_music::create),
    endpoint!(POST "/v1/3d/generations", Key, true, [], three_d::create),
    endpoint!(GET "/v1/jobs", Key, false, [], jobs::list),
    endpoint!(GET "/v1/jobs/{id}", Key, false, [Job], jobs::get),
    endpoint!(DELETE "/v1/jobs/{id}", Key, false, [Job], jobs::delete),
    endpoint!(POST "/v1/jobs/{id}/cancel", Key, false, [Job], jobs::cancel),
    endpoint!(GET "/v1/jobs/{id}/events", Key, false, [Job], jobs::events),
    endpoint!(GET "/v1/files/jobs/{job_id}/{filename}", Key, false, [Job, File], files::get),
    endpoint!(GET "/v1/files/jobs/{job_id}/{filename}/signed", Key, false, [Job, File], files::signed),
    endpoint!(GET "/v1/files/jobs/{job_id}/{filename}/public", Open, false, [Job, File], files::public),
    endpoint!(GET "/v1/webhook-secret", Key, false, [], webhook_secret::get),
    endpoint!(POST "/v1/webhook-secret/rotate", Key, false, [], webhook_secret::rotate),
    endpoint!(POST "/v1/sub-accounts", Manage, false, [], sub_accounts::create),
    endpoint!(GET "/v1/sub-accounts", Manage, false, [], sub_accounts::list),
    endpoint!(GET "/v1/sub-accounts/{id}", Manage, false, [SubAccount], sub_accounts::get),
    endpoint!(PATCH "/v1/sub-accounts/{id}", Manage, false, [SubAccount], sub_accounts::update),
    endpoint!(DELETE "/v1/sub-accounts/{id}", Manage, false, [SubAccount], sub_accounts::delete),
    endpoint!(GET "/v1/sub-accounts/{id}/usage", Key, false, [SubAccount], sub_accounts::usage),
    endpoint!(POST "/v1/keys", Manage, false, [], keys::create),
    endpoint!(GET "/v1/keys", Manage, false, [], keys::list),
    endpoint!(DELETE "/v1/keys/{id}", Manage, false, [ApiKey], keys::delete),
    endpoint!(POST "/v1/keys/{id}/rotate", Manage, false, [ApiKey], keys::rotate),
    endpoint!(POST "/v1/budgets", Manage, false, [], budgets::create),
    endpoint!(GET "/v1/budgets", Manage, false, [], budgets::list),
    endpoint!(PATCH "/v1/budgets/{id}", Manage, false, [Budget], budgets::update),
    endpoint!(DELETE "/v1/budgets/{id}", Manage, false, [Budget], budgets::delete),
    endpoint!(GET "/v1/usage/by-tag", Key, false, [], usage::by_tag),
    endpoint!(GET "/v1/usage/by-sub-account", Key, false, [], usage::by_sub_account),
    endpoint!(GET "/v1/usage/recent", Key, false, [], usage::recent),
    endpoint!(GET "/v1/requests/{id}", Key, false, [Request], requests::get),
    endpoint!(GET "/v1/balance", Key, false, [], balance::get),
    endpoint!(GET "/healthz", Open, false, [], ops::healthz),
    endpoint!(GET "/readyz", Open, false, [], ops::readyz),
    endpoint!(GET "/metrics", LocalOrAdmin, false, [], ops::metrics),
    endpoint!(GET "/openapi.json", Open, false, [], ops::openapi),
];

/// The router of the table.
#[expect(clippy::disallowed_methods, reason = "the one place that routes are made")]
pub fn router(api: &Api) -> Router {
    let mut router = Router::new();
    for endpoint in &ENDPOINTS {
        // Every method of the table is one that axum knows; the tests build the router.
        let Ok(filter) = MethodFilter::try_from(endpoint.method.clone()) else { continue };
        let guarded = from_fn_with_state((Arc::clone(api), endpoint), guard);
        router = router.route(endpoint.path, (endpoint.handler)(filter).route_layer(guarded));
    }
    let base_url = api.base_url.clone();
    router
        .fallback(move |uri: Uri| std::future::ready(ApiError(unknown_route(uri.path(), &base_url))))
        .method_not_allowed_fallback(|| std::future::ready(ApiError(wrong_method())))
        .with_state(Arc::clone(api))
}

fn wrong_method() -> Error {
    let message = "This path exists, but not with this method; the header Allow names those it has. Nothing was done.";
    Error::new(ErrorKind::MethodNotAllowed, message)
}

/// The 404 of a path that no route has. Says what is wrong with the base URL where the path shows it.
fn unknown_route(path: &str, base_url: &str) -> Error {
    let mistaken_base = ["/v1/chat/v1/", "/v1/chat/chat/", "/v1/v1/"].into_iter().any(|start| path.starts_with(start));
    let without_v1 = ["/chat/", "/models", "/videos/", "/audio/", "/3d/", "/jobs", "/files/"];
    let hint = if mistaken_base {
        format!("The base URL of your client has too much path: it must be exactly {base_url}.")
    } else if without_v1.into_iter().any(|start| path.starts_with(start)) {
        format!("The base URL of your client lacks the version: it must be exactly {base_url}.")
    } else if path.len() > 1 && path.ends_with('/') {
        "Paths here have no slash at the end.".to_owned()
    } else {
        "GET /openapi.json lists the routes there are.".to_owned()
    };
    Error::not_found(format!("There is no such route. {hint} Nothing was done."))
}

#[cfg(test)]
mod tests;
