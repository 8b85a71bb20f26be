//! `tenant_sees_own`: every route with ids in its path, with every id of somebody else, answers as if it never was.

use aig_api::router::{Access, ENDPOINTS, Endpoint, IdKind};
use aig_domain::Nano;
use reqwest::Method;
use serde_json::{Value, json};

use super::{CHAT, Priced, VIDEO, chat};
use crate::gateway::Answer;
use crate::tenants::{ask, create, text};

/// Somebody with a key, and what is theirs.
struct Owner {
    name: &'static str,
    key: String,
    /// A job that has ended and one that has not.
    jobs: [String; 2],
    /// The file of the first.
    file: String,
    sub_account: String,
    api_key: String,
    budget: String,
    /// A request that is on record.
    request: String,
}

impl Owner {
    /// Makes one of everything. `parent` is whose sub-account it is; a key of its own may not make those.
    async fn new(priced: &Priced, name: &'static str, key: &str, sub_account: Option<(&str, &str)>) -> Self {
        let gateway = &priced.gateway;
        let send = async |path: &str, body: Value| {
            let answer = ask(gateway, sub_account.map_or(key, |(_, parent)| parent), Method::POST, path, body).await;
            assert!(answer.status < 300, "{path}: {}", answer.text);
            answer.body
        };
        let made = async |prompt: &str| {
            let body = json!({ "model": "media/any", "prompt": prompt, "duration": 1 });
            let job = ask(gateway, key, Method::POST, VIDEO, body).await;
            assert_eq!(job.status, 202, "{}", job.text);
            text(&job.body, "id").to_owned()
        };
        let jobs = [made("x").await, made("[fake never]").await];
        let path = format!("/v1/jobs/{}", jobs[0]);
        let ended = aig_testkit::eventually("the job ends", crate::gateway::SOON, || async {
            let job = ask(gateway, key, Method::GET, &path, Value::Null).await.body;
            (job["status"] == "completed").then_some(job)
        });
        let file = text(&ended.await.unwrap()["result"], "filename").to_owned();
        let own = send("/v1/sub-accounts", json!({ "name": name })).await;
        let sub = sub_account.map_or(text(&own, "id"), |(id, _)| id).to_owned();
        let api_key = match sub_account {
            Some((id, _)) => send("/v1/keys", json!({ "sub_account_id": id })).await,
            None => send("/v1/keys", json!({})).await,
        };
        let budget = send("/v1/budgets", json!({ "tag": name, "monthly_cap_cents": 100 })).await;
        let (api_key, budget) = (text(&api_key, "id").to_owned(), text(&budget, "id").to_owned());
        let request = ask(gateway, key, Method::POST, CHAT, chat("hi", false)).await;
        assert_eq!(request.status, 200, "{}", request.text);
        let request = request.header("x-request-id").to_owned();
        priced.books.request(&request).await;
        Self { name, key: key.to_owned(), jobs, file, sub_account: sub, api_key, budget, request }
    }

    /// All of its ids that fit into the path, in every combination that makes sense.
    fn paths(&self, endpoint: &Endpoint) -> Vec<String> {
        self.jobs.iter().map(|job| self.path(endpoint, job, str::to_owned)).collect()
    }

    /// The path with ids that never were, in the shape of those.
    fn never(&self, endpoint: &Endpoint) -> String {
        self.path(endpoint, &self.jobs[0], |id| {
            if let Some((_, kind)) = id.rsplit_once('.') {
                return format!("other.{kind}");
            }
            let (kind, rest) = id.split_once('_').unwrap();
            format!("{kind}_{}", rest.chars().rev().collect::<String>())
        })
    }

    fn path(&self, endpoint: &Endpoint, job: &str, map: impl Fn(&str) -> String) -> String {
        let mut ids = endpoint.ids.iter();
        let part = |part: &str| {
            if !part.starts_with('{') {
                return part.to_owned();
            }
            map(match ids.next().unwrap_or_else(|| panic!("{} has an id of no kind", endpoint.path)) {
                IdKind::Job => job,
                IdKind::File => &self.file,
                IdKind::SubAccount => &self.sub_account,
                IdKind::ApiKey => &self.api_key,
                IdKind::Budget => &self.budget,
                IdKind::Request => &self.request,
                IdKind::Model => panic!("models are everybody's"),
            })
        };
        endpoint.path.split('/').map(part).collect::<Vec<_>>().join("/")
    }
}

/// What the client sees, without what is another one in each answer.
fn seen(answer: &Answer) -> (u16, Value, Vec<String>) {
    let mut body = answer.body.clone();
    if let Some(error) = body["error"].as_object_mut() {
        error.remove("request_id");
    }
    let mut headers: Vec<String> = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
    headers.sort();
    (answer.status, body, headers)
}

#[tokio::test]
async fn tenant_sees_own() {
    let priced = Priced::start().await;
    let gateway = &priced.gateway;
    let other = gateway.other_account_in(&priced.books.store).await;
    let (first, second) = (priced.sub_account(None).await, priced.sub_account(Nano::CENT.plus(Nano::CENT)).await);
    let parent = Owner::new(&priced, "parent", &gateway.key, None).await;
    let stranger = Owner::new(&priced, "stranger", &other, None).await;
    let first = Owner::new(&priced, "first", &first.key, Some((&first.id, &gateway.key))).await;
    let second = Owner::new(&priced, "second", &second.key, Some((&second.id, &gateway.key))).await;
    let mut tried = 0;
    for (who, whose) in [
        (&stranger, &parent),
        (&stranger, &first),
        (&parent, &stranger),
        (&first, &parent),
        (&first, &second),
        (&second, &first),
        (&second, &stranger),
    ] {
        let with_ids = |endpoint: &&Endpoint| !endpoint.ids.is_empty() && endpoint.ids != [IdKind::Model];
        for endpoint in ENDPOINTS.iter().filter(with_ids) {
            // A body that every one of them would take.
            let body = if matches!(endpoint.method, Method::GET | Method::DELETE) {
                Value::Null
            } else {
                json!({ "name": "theirs", "monthly_cap_cents": 0, "spend_cap_cents": 0 })
            };
            let is_sub = who.name == "first" || who.name == "second";
            let expected = match endpoint.access {
                Access::Manage if is_sub => 403,
                Access::Key | Access::Manage => 404,
                // Without the token that is in its links.
                Access::Open => 400,
                Access::LocalOrAdmin => panic!("{} has no tenant", endpoint.path),
            };
            let never = ask(gateway, &who.key, endpoint.method.clone(), &whose.never(endpoint), body.clone()).await;
            for path in whose.paths(endpoint) {
                let answer = ask(gateway, &who.key, endpoint.method.clone(), &path, body.clone()).await;
                let what = format!("{} asks {} {path}, {}'s: {}", who.name, endpoint.method, whose.name, answer.text);
                assert_eq!(answer.status, expected, "{what}");
                assert_eq!(seen(&answer), seen(&never), "as if it never was: {what}");
                tried += 1;
            }
        }
        in_lists(&priced, who, whose).await;
    }
    assert!(tried >= 7 * 2 * 16, "{tried}");
    for owner in [&parent, &stranger, &first, &second] {
        untouched(&priced, owner).await;
    }
}

/// What is listed is one's own, and somebody else's id is no place in a list.
async fn in_lists(priced: &Priced, who: &Owner, whose: &Owner) {
    for (path, id) in [
        ("/v1/jobs", &whose.jobs[0]),
        ("/v1/keys", &whose.api_key),
        ("/v1/sub-accounts", &whose.sub_account),
        ("/v1/budgets", &whose.budget),
    ] {
        let get = async |path: &str| ask(&priced.gateway, &who.key, Method::GET, path, Value::Null).await;
        let list = get(&format!("{path}?limit=100")).await;
        assert!(!list.text.contains(id.as_str()), "{} sees {id} in {path}", who.name);
        let never = format!("{}{}", &id[..id.len() - 4], "0000");
        let (there, never) = (get(&format!("{path}?after={id}")).await, get(&format!("{path}?after={never}")).await);
        assert_eq!(seen(&there), seen(&never), "{path}?after={id}");
    }
}

/// All that is theirs is still there, as it was.
async fn untouched(priced: &Priced, owner: &Owner) {
    let job = async |id: &str| {
        ask(&priced.gateway, &owner.key, Method::GET, &format!("/v1/jobs/{id}"), Value::Null).await.body
    };
    assert_eq!(job(&owner.jobs[0]).await["status"], "completed", "{}", owner.name);
    assert_eq!(job(&owner.jobs[1]).await["status"], "processing", "nobody cancelled it");
    let books = &priced.books;
    let is = async |table: &str, when: String| assert_eq!(books.count(table, &when).await, 1, "{table} {when}");
    is("api_keys", format!("id = '{}' AND revoked_at IS NULL", owner.api_key)).await;
    is("api_keys", format!("id = '{}' AND replaces IS NULL", owner.api_key)).await;
    is("accounts", format!("id = '{}' AND deleted_at IS NULL AND name <> 'theirs'", owner.sub_account)).await;
    is("caps", format!("id = '{}' AND cap = {}", owner.budget, 100 * Nano::CENT.0)).await;
    assert_eq!(books.count("api_keys", &format!("replaces = '{}'", owner.api_key)).await, 0);
    let made = create(&priced.gateway, "/v1/sub-accounts", json!({ "name": "still" })).await;
    assert!(made["key"].is_string());
}
