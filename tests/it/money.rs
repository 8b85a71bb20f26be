//! Money, from outside: what a cap promises, at any concurrency, by every route, through every end of a call and every crash. The
//! providers are fakes that count what they were asked to do, and the books are read from the database beside the gateway.

mod books;
mod cap_holds;
mod crashes;
mod ends;
mod lifecycle;
mod rogues;
mod routes;
mod soak;
mod tenants;

use aig_domain::Nano;
use aig_testkit::{JobsFake, JobsFaults, OpenaiFake};
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway};
use crate::own_servers::OwnPostgres;
use crate::servers::is_distributed;
use crate::tenants::{create, text};
use books::Books;

const ROLES: [&str; 5] = ["api", "api", "api", "worker", "scheduler"];
pub const CHAT: &str = "/v1/chat/completions";
pub const VIDEO: &str = "/v1/videos/generations";

/// What a token costs, read and written, in nano-USD without a margin: the list prices of [`PRICES`].
const READ: i64 = 1_000;
const WRITTEN: i64 = 4_000;
/// What the video of [`video`] costs.
const A_VIDEO: Nano = Nano(5_000_000);
const PRICES: &str = "[prices]\nmargin_percent = 0\n\
    [models.'up/m']\ninput_cents_per_million = 100\noutput_cents_per_million = 400\n\
    [models.'media/any']\ncents_per_video_second = 0.5\ncents_per_music_second = 0.1\ncents_per_mesh = 1\n";

/// A gateway whose models have prices, the providers of those models, and its books.
pub struct Priced {
    pub gateway: Gateway,
    pub chat: OpenaiFake,
    pub media: JobsFake,
    pub books: Books,
    /// Of its own, since the processes here open more connections than a server has that other tests use, too.
    _postgres: Option<OwnPostgres>,
}

impl Priced {
    /// One process, or three that answer requests beside the other roles.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(vars: &[(&str, &str)]) -> Self {
        Self::start_on(true, vars).await
    }

    /// One process of each role, for what needs no more.
    pub async fn start_few() -> Self {
        Self::start_on(false, &[]).await
    }

    async fn start_on(many: bool, vars: &[(&str, &str)]) -> Self {
        let chat = OpenaiFake::start().await.unwrap();
        let media = JobsFake::start(JobsFaults::default()).await.unwrap();
        let toml = format!(
            "[providers.up]\nkind = 'openai'\nbase_url = '{}'\nmodels = ['m']\n\
             [providers.media]\nkind = 'aigateway'\nbase_url = '{}'\nmodels = '*'\nidempotent_submit = true\n{PRICES}",
            chat.url(),
            media.url()
        );
        let (gateway, url, postgres) = if many && is_distributed() {
            let postgres = OwnPostgres::start().await;
            let url = postgres.url();
            // What is given stands before this one.
            let vars: Vec<_> = [("AIG_DATABASE_URL", &*url)].into_iter().chain(vars.iter().copied()).collect();
            (Gateway::start_distributed(&toml, &vars, &ROLES).await, url, Some(postgres))
        } else {
            let gateway = Gateway::start_with(&toml, vars).await;
            let url = gateway.database_url();
            (gateway, url, None)
        };
        let books = Books::open(&url).await;
        Self { gateway, chat, media, books, _postgres: postgres }
    }

    /// A sub-account with this cap.
    pub async fn sub_account(&self, cap: impl Into<Option<Nano>>) -> SubAccount {
        let cap = cap.into().map(Nano::cents_json);
        let made = create(&self.gateway, "/v1/sub-accounts", json!({ "name": "s", "spend_cap_cents": cap })).await;
        SubAccount { id: text(&made, "id").to_owned(), key: text(&made, "key").to_owned() }
    }

    /// A request on the `turn`-th process that answers requests, so that all have their share.
    pub async fn send(&self, turn: usize, key: &str, path: &str, body: &Value) -> Answer {
        let response = self.request(turn, key, path, body).send().await;
        let answer = Answer::of(response.unwrap_or_else(|error| panic!("{error:?}\n{}", self.complaints()))).await;
        assert!(answer.status < 500, "{}\n{}", answer.text, self.complaints());
        answer
    }

    /// What the gateway's processes logged that is no routine.
    pub fn complaints(&self) -> String {
        let log = self.gateway.log();
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect::<Vec<_>>().join("\n")
    }

    /// The same, to be sent.
    pub fn request(&self, turn: usize, key: &str, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let urls = if is_distributed() { self.gateway.urls("api") } else { vec![self.gateway.url.clone()] };
        let url = format!("{}{path}", urls[turn % urls.len()]);
        self.gateway.anonymous(Method::POST, &url).bearer_auth(key).json(body)
    }

    /// What is reserved for `body`: a key with nothing to spend is told.
    pub async fn bound_of(&self, body: &Value) -> Nano {
        let nothing = self.sub_account(Nano::ZERO).await;
        let refused = self.send(0, &nothing.key, CHAT, body).await;
        assert_eq!(refused.status, 402, "{}", refused.text);
        cents(&refused.body["error"]["budget"]["requested_cents"])
    }

    /// The same, and that it is what is charged for it when the fake uses as much as it may (`bound_usage`).
    pub async fn price_of(&self, body: &Value) -> Nano {
        let price = self.bound_of(body).await;
        let all = self.sub_account(None).await;
        let mut whole = body.clone();
        whole["messages"][0]["content"] = text(&body["messages"][0], "content").replace("hold", "yeah").into();
        assert_eq!(self.send(0, &all.key, CHAT, &whole).await.status, 200);
        assert_eq!(self.books.quiet(&all.id).await.spent, price, "the fake uses what is reserved");
        price
    }
}

/// A sub-account and its key.
pub struct SubAccount {
    pub id: String,
    pub key: String,
}

/// A chat call that may write ten tokens.
pub fn chat(prompt: &str, stream: bool) -> Value {
    json!({
        "model": "up/m", "messages": [{ "role": "user", "content": prompt }], "max_tokens": 10, "stream": stream,
    })
}

/// A video that costs [`A_VIDEO`].
pub fn video(prompt: &str) -> Value {
    json!({ "model": "media/any", "prompt": prompt, "duration": 1 })
}

/// An amount on the wire.
pub fn cents(value: &Value) -> Nano {
    Nano::parse_cents(&value.to_string()).unwrap_or_else(|| panic!("{value} is no amount in cents"))
}

/// What `count` times `price` is.
pub fn times(price: Nano, count: usize) -> Nano {
    Nano(price.0 * i64::try_from(count).unwrap())
}

/// Holds an answer to what a refusal for `sub_account` must say; gives what it says is used.
pub fn refused(answer: &Answer, sub_account: &SubAccount) -> Nano {
    let error = &answer.body["error"];
    assert_eq!((answer.status, &error["type"], &error["code"]), (402, &json!("budget_exceeded"), &json!(402)));
    assert!(answer.header("x-request-id").starts_with("req_"), "{:?}", answer.headers);
    assert_eq!(error["request_id"], answer.header("x-request-id"));
    assert_eq!(answer.header("x-should-retry"), "false");
    let budget = &error["budget"];
    assert_eq!((&budget["scope"], &budget["scope_id"]), (&json!("sub_account"), &json!(sub_account.id)));
    assert!(text(error, "message").contains("nothing was charged"), "{error}");
    let (cap, used) = (cents(&budget["cap_cents"]), cents(&budget["spent_cents"]).plus(cents(&budget["held_cents"])));
    assert!(used.plus(cents(&budget["requested_cents"])) > cap || used >= cap, "{budget}");
    used
}
