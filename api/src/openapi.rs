//! The OpenAPI document, made from the table of routes. `docs/openapi.json` is this document, committed; a test fails
//! when it is stale (`UPDATE=1 cargo test -p aig-api` writes it). Tests at the end.

use std::sync::OnceLock;

use aig_domain::job_request::JobRecord;
use aig_platform::readiness::Readiness;
use bytes::Bytes;
use http::Method;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HttpMethod, OpenApi, PathItem, Ref, ResponseBuilder};
use utoipa::{OpenApi as _, Path};

use crate::error::ErrorBody;
use crate::router::{Access, ENDPOINTS, Endpoint};
use crate::routes::jobs::create::{MusicRequest, ThreeDRequest, VideoRequest};
use crate::routes::jobs::list::JobList;
use crate::routes::models::list::ModelList;
use crate::routes::{balance, budgets, chat, files, keys, requests, sub_accounts, usage, webhook_secret};

const SECURITY: &str = "bearerAuth";

/// What the document says besides its paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "AIgateway",
        description = "One OpenAI-compatible API in front of every AI provider, and durable jobs for the AI work that takes \
            minutes. Every answer carries `X-Request-Id`, and every error has the same shape. `x-aig-tag` labels the cost \
            of a request. With an `Idempotency-Key` a job may be submitted again without making a second one.",
    ),
    components(schemas(
        ErrorBody,
        JobRecord,
        JobList,
        ModelList,
        VideoRequest,
        MusicRequest,
        ThreeDRequest,
        chat::create::ChatBody,
        files::signed::SignedUrl,
        Readiness,
        webhook_secret::get::WebhookSecret,
        sub_accounts::create::SubAccountBody,
        sub_accounts::create::SubAccountRecord,
        sub_accounts::create::NewSubAccountRecord,
        sub_accounts::update::SubAccountPatch,
        sub_accounts::list::SubAccountList,
        sub_accounts::delete::Deleted,
        keys::create::KeyBody,
        keys::create::ApiKeyRecord,
        keys::create::NewKeyRecord,
        keys::list::KeyList,
        budgets::create::BudgetBody,
        budgets::create::BudgetRecord,
        budgets::update::BudgetPatch,
        budgets::list::BudgetList,
        usage::by_tag::UsageByTag,
        usage::by_sub_account::UsageBySubAccount,
        usage::recent::RequestList,
        requests::get::RequestRecord,
        balance::get::BalanceRecord,
        sub_accounts::usage::SubAccountUsageRecord,
    ))
)]
struct Base;

/// What the handler of a route says about itself.
pub struct Doc {
    operation: Operation,
    methods: Vec<HttpMethod>,
    path: String,
}

impl Doc {
    /// The documentation of the handler behind `P`.
    pub fn of<P: Path>() -> Self {
        Self { operation: P::operation(), methods: P::methods(), path: P::path() }
    }

    /// Whether it documents this method and path.
    pub fn covers(&self, method: &Method, path: &str) -> bool {
        self.path == path && self.methods.iter().any(|known| Some(known) == http_method(method).as_ref())
    }
}

fn http_method(method: &Method) -> Option<HttpMethod> {
    match *method {
        Method::GET => Some(HttpMethod::Get),
        Method::POST => Some(HttpMethod::Post),
        Method::DELETE => Some(HttpMethod::Delete),
        Method::PATCH => Some(HttpMethod::Patch),
        _ => None,
    }
}

/// The whole document.
pub fn document() -> OpenApi {
    let mut document = Base::openapi();
    for endpoint in &ENDPOINTS {
        let Some(method) = http_method(&endpoint.method) else { continue };
        let item = PathItem::new(method, operation(endpoint));
        document.paths.paths.entry(endpoint.openapi_path.to_owned()).or_default().merge_operations(item);
    }
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("sk-aig-…").build();
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(SECURITY.to_owned(), SecurityScheme::Http(scheme).into());
    document
}

/// A handler's own page, with what the table knows: its name, its key, and that every error looks alike.
fn operation(endpoint: &Endpoint) -> Operation {
    let mut operation = (endpoint.doc)().operation;
    let words = endpoint.openapi_path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: Vec<&str> = words.collect();
    operation.operation_id = Some(format!("{}_{}", endpoint.method.as_str().to_ascii_lowercase(), name.join("_")));
    operation.tags = Some(vec![group(&name).to_owned()]);
    if endpoint.access != Access::Open {
        operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(SECURITY, [])]);
    }
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    let error = ResponseBuilder::new().description("What went wrong.").content("application/json", content).build();
    operation.responses.responses.insert("default".to_owned(), error.into());
    operation
}

/// Under which heading a path stands, by its words.
fn group(words: &[&str]) -> &'static str {
    match words {
        ["v1", "chat", ..] => "chat",
        ["v1", "models", ..] => "models",
        ["v1", "files", ..] => "files",
        ["v1", "webhook", ..] => "webhooks",
        ["v1", "sub", "accounts", ..] => "sub-accounts",
        ["v1", "keys", ..] => "keys",
        ["v1", "budgets", ..] => "budgets",
        ["v1", "usage" | "requests" | "balance", ..] => "usage",
        ["v1", ..] => "jobs",
        _ => "operations",
    }
}

/// The document as it is served and committed.
pub fn json() -> Bytes {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = || document().to_pretty_json().map(|text| Bytes::from(text + "\n")).unwrap_or_default();
    TEXT.get_or_init(text).clone()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

    #[test]
    fn the_committed_document_is_fresh() {
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(FILE, json()).unwrap();
        }
        let committed = std::fs::read(FILE).unwrap_or_default();
        assert!(json() == committed, "docs/openapi.json is stale; run `UPDATE=1 cargo test -p aig-api` and commit it");
    }

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let document: Value = serde_json::from_slice(&json()).unwrap();
        let mut documented: Vec<String> = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            documented.extend(item.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
        }
        let mut routed: Vec<String> = ENDPOINTS
            .iter()
            .map(|endpoint| format!("{} {}", endpoint.method.as_str().to_ascii_lowercase(), endpoint.openapi_path))
            .collect();
        documented.sort();
        routed.sort();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_reference_resolves_and_every_operation_has_its_own_name() {
        let document: Value = serde_json::from_slice(&json()).unwrap();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
        let names: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
