//! The table is complete and consistent, and its paths do not collide.

use std::collections::HashSet;

use super::*;

const BASE: &str = "http://127.0.0.1:8080/v1";

#[test]
fn each_route_is_in_the_table_once() {
    let mut seen = HashSet::new();
    for endpoint in &ENDPOINTS {
        assert!(seen.insert((endpoint.method.clone(), endpoint.path)), "{} {}", endpoint.method, endpoint.path);
    }
}

#[test]
fn the_document_of_a_route_names_its_method_and_path() {
    for endpoint in &ENDPOINTS {
        let doc = (endpoint.doc)();
        let name = format!("{} {}", endpoint.method, endpoint.path);
        assert!(doc.covers(&endpoint.method, endpoint.openapi_path), "{name}");
    }
}

#[test]
fn ids_and_placeholders_are_the_same_in_number() {
    for endpoint in &ENDPOINTS {
        assert_eq!(endpoint.path.matches('{').count(), endpoint.ids.len(), "{}", endpoint.path);
        assert_eq!(endpoint.openapi_path.matches('{').count(), endpoint.ids.len(), "{}", endpoint.path);
    }
}

#[test]
fn what_costs_money_or_shows_a_tenants_things_needs_a_key() {
    for endpoint in &ENDPOINTS {
        let signed_link = endpoint.path.ends_with("/public");
        if endpoint.costs_money || (endpoint.path.starts_with("/v1/") && !endpoint.path.contains("openapi")) {
            assert!(matches!(endpoint.access, Access::Key | Access::Manage) || signed_link, "{}", endpoint.path);
        }
    }
}

#[test]
fn what_names_a_key_a_sub_account_or_a_budget_takes_a_key_that_may_manage() {
    let managed = [IdKind::SubAccount, IdKind::ApiKey, IdKind::Budget];
    // What a sub-account used, it may read itself.
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.path != "/v1/sub-accounts/{id}/usage") {
        if endpoint.ids.iter().any(|kind| managed.contains(kind)) {
            assert_eq!(endpoint.access, Access::Manage, "{}", endpoint.path);
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test builds the table's router without its state")]
fn axum_takes_every_row() {
    let mut router: Router<Api> = Router::new();
    for endpoint in &ENDPOINTS {
        let filter = MethodFilter::try_from(endpoint.method.clone()).unwrap();
        router = router.route(endpoint.path, (endpoint.handler)(filter));
    }
    drop(router);
}

#[test]
fn unknown_routes_say_what_is_wrong_with_the_base_url() {
    for (path, words) in [
        ("/v1/chat/v1/chat/completions", "too much path"),
        ("/v1/chat/chat/completions", "too much path"),
        ("/v1/v1/models", "too much path"),
        ("/chat/completions", "lacks the version"),
        ("/models", "lacks the version"),
        ("/v1/jobs/", "no slash"),
        ("/v2/x", "openapi.json"),
    ] {
        let error = unknown_route(path, BASE);
        assert!(error.message.contains(words), "{path}: {}", error.message);
        assert_eq!(error.message.contains(BASE), words.contains("path") || words.contains("version"), "{path}");
    }
}
