//! The gateway as its users have it: a process with a data folder, and an HTTP client beside it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aig_domain::clock::SystemClock;
use aig_domain::crypto::KeyRing;
use aig_domain::signing::new_webhook_secret;
use aig_domain::{Clock as _, Secret, id, keys};
use aig_store::{NewAccount, NewApiKey, Scope, Store, StoreConfig};
use aig_testkit::eventually;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

/// How long anything here may take before a test fails.
pub const SOON: Duration = Duration::from_secs(30);

/// Ticks that are quick enough for tests.
const QUICK: &str = "[tasks]\ndispatch_interval_ms = 50\nrescue_interval_ms = 200\nretain_interval_ms = 200\nsubmit_attempts = 3\nlease_ms = 3000\n";

/// A gateway process with its data folder; killed when dropped.
pub struct Gateway {
    pub folder: TempDir,
    pub url: String,
    pub key: String,
    child: Option<Child>,
    vars: Vec<(String, String)>,
    database: Option<TestDatabase>,
    client: reqwest::Client,
}

/// A PostgreSQL database of its own, dropped with the test.
struct TestDatabase {
    server: String,
    name: String,
}

impl TestDatabase {
    fn url(&self) -> String {
        let mut url: reqwest::Url = self.server.parse().unwrap();
        url.set_path(&self.name);
        url.into()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // Best effort: a database that stays behind is seen by nobody.
        let _ = psql(&self.server, &sql);
    }
}

fn psql(server: &str, sql: &str) -> std::io::Result<bool> {
    let run = Command::new("psql")
        .args(["-q", "-d", server, "-c", sql])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    Ok(run.success())
}

/// A fresh database on the PostgreSQL that tests may use; `None`, said visibly, when there is none.
fn test_database() -> Option<TestDatabase> {
    let server =
        std::env::var("AIG_TEST_POSTGRES_URL").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into());
    let unique = tempfile::Builder::new().prefix("x").rand_bytes(12).tempfile_in(std::env::temp_dir()).unwrap();
    let name = format!("aig_it_{}", unique.path().file_name().unwrap().to_string_lossy().to_lowercase());
    if psql(&server, &format!("CREATE DATABASE {name}")).unwrap_or(false) {
        return Some(TestDatabase { server, name });
    }
    assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "no PostgreSQL at {server}");
    std::io::stderr().write_all(b"SKIPPED: no PostgreSQL; run deploy/services up\n").unwrap();
    None
}

impl Gateway {
    /// Starts a gateway with this `aigateway.toml` on the embedded database.
    pub async fn start(toml: &str) -> Self {
        Self::start_with(toml, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(toml: &str, vars: &[(&str, &str)]) -> Self {
        Self::launch(toml, vars, None).await
    }

    /// The same on PostgreSQL; `None` when there is none.
    pub async fn start_on_postgres(toml: &str) -> Option<Self> {
        let database = test_database()?;
        let url = database.url();
        Some(Self::launch(toml, &[("AIG_DATABASE_URL", &url)], Some(database)).await)
    }

    #[expect(clippy::disallowed_methods, reason = "a test is a client like any other")]
    async fn launch(toml: &str, vars: &[(&str, &str)], database: Option<TestDatabase>) -> Self {
        // An error means that another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let toml = if toml.contains("[tasks]") { toml.to_owned() } else { format!("{toml}\n{QUICK}") };
        std::fs::write(folder.path().join("aigateway.toml"), toml).unwrap();
        let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
        let mut gateway = Self { folder, url: String::new(), key: String::new(), child: None, vars, database, client };
        gateway.spawn().await;
        gateway
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aigateway"));
        command.arg("--data-dir").arg(self.folder.path()).args(["--listen", "127.0.0.1:0"]);
        // A folder without an aigateway.toml of its own, so that the one in the data folder is found.
        command.current_dir(self.folder.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("AIG_LOG", "debug,hyper=info,sqlx=info").env("AIG_LOG_FORMAT", "json");
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the process again on the same data.
    pub async fn spawn(&mut self) {
        let url_file = self.folder.path().join("url");
        // A process that was killed left its own behind.
        let _ = std::fs::remove_file(&url_file);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let child = self.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.child = Some(child);
        let url = eventually("the gateway listens", SOON, || async { std::fs::read_to_string(&url_file).ok() }).await;
        url.unwrap_or_else(|error| panic!("{error}\n{}", self.log())).trim().clone_into(&mut self.url);
        self.key = std::fs::read_to_string(self.folder.path().join("first-key")).unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("test.log")
    }

    /// Everything that the process wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; the process goes on until [`Gateway::ended`].
    pub fn terminate(&self) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let status = eventually("the process ends", SOON, || {
            let status = child.try_wait().unwrap();
            async move { status }
        });
        status.await.unwrap()
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    pub fn anonymous(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body).send().await.unwrap()).await
    }

    /// Submits a job; gives its id.
    pub async fn submit(&self, path: &str, body: &Value) -> String {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body["id"].as_str().unwrap().to_owned()
    }

    /// A video job with this prompt.
    pub async fn video(&self, prompt: &str) -> String {
        self.submit("/v1/videos/generations", &json!({ "prompt": prompt, "duration": 1 })).await
    }

    pub async fn job(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/jobs/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// Waits until a job has ended.
    pub async fn wait(&self, id: &str) -> Value {
        let ended = eventually("the job ends", SOON, || async {
            let job = self.job(id).await;
            matches!(job["status"].as_str(), Some("completed" | "failed")).then_some(job)
        });
        ended.await.unwrap_or_else(|error| panic!("{error}: {id}\n{}", self.log()))
    }

    /// An environment variable for the next [`Gateway::spawn`].
    pub fn set_var(&mut self, name: &str, value: &str) {
        self.vars.push((name.into(), value.into()));
    }

    /// The gateway's database, beside the running process.
    pub async fn store(&self) -> Store {
        let url = match &self.database {
            None => format!("sqlite:{}", self.folder.path().join("gateway.db").display()),
            Some(database) => database.url(),
        };
        let config = StoreConfig { url: Secret::new(url), max_connections: 2 };
        Store::connect(&config, Arc::new(SystemClock), &TaskTracker::new()).await.unwrap()
    }

    /// Makes another account; gives its key.
    pub async fn other_account(&self) -> String {
        let ring = KeyRing::parse(self.file("secret-key").trim()).unwrap();
        let key = keys::generate(&ring);
        let id = id::new("acc_", SystemClock.now());
        let account = NewAccount {
            webhook_secret: ring.seal(&id, new_webhook_secret().expose()),
            id,
            name: "other".into(),
            tier: "unlimited".into(),
            keys: vec![NewApiKey {
                id: id::new("key_", SystemClock.now()),
                public_id: key.public_id,
                hash: key.hash,
                kid: key.kid,
                scope: Scope::Standard,
            }],
        };
        let store = self.store().await;
        store.create_account(&account).await.unwrap();
        store.close().await;
        key.text.expose().to_owned()
    }

    pub fn has_database(&self) -> bool {
        self.database.is_some()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// The JSON; null when it is none.
    pub body: Value,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Self { status, headers, text, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}
