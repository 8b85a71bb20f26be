//! The gateway as its users have it, and an HTTP client beside it: one process with a data folder, or, with
//! `AIG_TEST_COMPOSITION=distributed`, a process for each role on PostgreSQL, RabbitMQ, Redis and S3.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
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

use crate::servers::{Place, TestDatabase, free_port, is_distributed, skipped};

/// How long anything here may take before a test fails.
pub const SOON: Duration = Duration::from_secs(30);

/// Ticks that are quick enough for tests.
const QUICK: &str = "[tasks]\ndispatch_interval_ms = 50\nrescue_interval_ms = 200\nretain_interval_ms = 200\nsubmit_attempts = 3\nlease_ms = 3000\n";

/// One process.
struct Process {
    /// The subcommand.
    role: &'static str,
    /// Where it answers `/readyz` and `/metrics`.
    url: String,
    /// Environment variables of its own.
    vars: Vec<(&'static str, String)>,
    child: Option<Child>,
}

/// A gateway with its data folder; killed when dropped.
pub struct Gateway {
    pub folder: TempDir,
    pub url: String,
    pub key: String,
    processes: Vec<Process>,
    vars: Vec<(String, String)>,
    client: reqwest::Client,
    database: Option<TestDatabase>,
    place: Option<Place>,
}

impl Gateway {
    /// Starts a gateway with this `aigateway.toml` on the composition under test.
    pub async fn start(toml: &str) -> Self {
        Self::start_with(toml, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(toml: &str, vars: &[(&str, &str)]) -> Self {
        if is_distributed() {
            Self::start_distributed(toml, vars, &["api", "worker", "scheduler"]).await
        } else {
            Self::launch(toml, vars, None, None, &["all"]).await
        }
    }

    /// One process on PostgreSQL; `None` when there is none.
    pub async fn start_on_postgres(toml: &str) -> Option<Self> {
        let database = TestDatabase::create()?;
        Some(Self::launch(toml, &[("AIG_DATABASE_URL", &database.url())], Some(database), None, &["all"]).await)
    }

    /// These roles, each in a process of its own, on the real servers.
    pub async fn start_distributed(toml: &str, vars: &[(&str, &str)], roles: &[&'static str]) -> Self {
        let database = TestDatabase::create().unwrap_or_else(|| panic!("the distributed composition needs PostgreSQL"));
        let place = Place::new();
        let mut all = place.vars();
        all.push(("AIG_DATABASE_URL".into(), database.url()));
        all.extend(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Self::launch(toml, &all, Some(database), Some(place), roles).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test is a client like any other")]
    async fn launch(
        toml: &str,
        vars: &[(&str, &str)],
        database: Option<TestDatabase>,
        place: Option<Place>,
        roles: &[&'static str],
    ) -> Self {
        // An error means that another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let toml = if toml.contains("[tasks]") { toml.to_owned() } else { format!("{toml}\n{QUICK}") };
        std::fs::write(folder.path().join("aigateway.toml"), toml).unwrap();
        let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        // The gateway closes a connection that is idle for ten seconds; a client that takes it up just then is cut off.
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).pool_idle_timeout(Duration::from_secs(5));
        let client = client.build().unwrap();
        let processes = roles
            .iter()
            .map(|role| Process {
                role,
                url: format!("http://127.0.0.1:{}", free_port()),
                vars: Vec::new(),
                child: None,
            })
            .collect();
        let mut gateway =
            Self { folder, url: String::new(), key: String::new(), processes, vars, client, database, place };
        if gateway.is_split() {
            let migrated = gateway.command("migrate").output().unwrap();
            assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        }
        gateway.spawn().await;
        gateway
    }

    /// Whether each role has a process of its own.
    pub fn is_split(&self) -> bool {
        self.processes.iter().any(|process| process.role != "all")
    }

    /// A subcommand on the gateway's data.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aigateway"));
        command.arg(subcommand).arg("--data-dir").arg(self.folder.path());
        // A folder without an aigateway.toml of its own, so that the one in the data folder is found.
        command.current_dir(self.folder.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("AIG_LOG", "debug,hyper=info,sqlx=info,reqwest=info").env("AIG_LOG_FORMAT", "json");
        command.env("AIG_LISTEN", "127.0.0.1:0");
        if self.is_split() {
            command.env("AIG_PUBLIC_URL", self.processes.iter().find(|it| it.role == "api").map_or("", |it| &it.url));
        }
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts every process that does not run, on the same data, and waits until each is ready.
    pub async fn spawn(&mut self) {
        for index in 0..self.processes.len() {
            if self.processes[index].child.is_none() {
                self.spawn_one(index);
            }
        }
        for index in 0..self.processes.len() {
            self.ready(index).await;
        }
        self.url.clone_from(&self.processes[0].url);
        self.key = std::fs::read_to_string(self.folder.path().join("first-key")).unwrap();
    }

    fn spawn_one(&mut self, index: usize) {
        let Process { role, url, vars, .. } = &self.processes[index];
        let address = url.trim_start_matches("http://");
        let mut command = self.command(role);
        match *role {
            "all" | "api" => command.env("AIG_LISTEN", address),
            _ => command.env("AIG_HEALTH_LISTEN", address),
        };
        command.envs(vars.iter().map(|(name, value)| (name, value)));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        self.processes[index].child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    async fn ready(&mut self, index: usize) {
        let (log, client) = (self.log_path(), self.client.clone());
        let Process { role, url, child, .. } = &mut self.processes[index];
        let readyz = format!("{url}/readyz");
        let ready = eventually("the process is ready", SOON, || {
            let ended = child.as_mut().unwrap().try_wait().unwrap();
            let asked = client.get(&readyz).send();
            async move {
                if let Some(status) = ended {
                    return Some(Err(format!("it ended with {status}")));
                }
                asked.await.is_ok_and(|answer| answer.status() == 200).then_some(Ok(()))
            }
        });
        if let Err(error) = ready.await.map_err(|error| error.to_string()).and_then(|ready| ready) {
            panic!("{role}: {error}\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("test.log")
    }

    /// Everything that the processes wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// SIGKILL to every process.
    pub fn kill(&mut self) {
        self.kill_role("");
    }

    /// SIGKILL to the processes of `role`; an empty one means all.
    pub fn kill_role(&mut self, role: &str) {
        for index in 0..self.processes.len() {
            if role.is_empty() || self.processes[index].role == role {
                self.kill_one(index);
            }
        }
    }

    /// SIGKILL to one process, for [`Gateway::spawn`].
    pub fn kill_one(&mut self, index: usize) {
        if let Some(mut child) = self.processes[index].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends `signal`, such as `TERM`, to the processes of `role`; an empty one means all.
    pub fn signal(&self, role: &str, signal: &str) {
        for process in self.processes.iter().filter(|it| role.is_empty() || it.role == role) {
            if let Some(child) = &process.child {
                let pid = child.id().to_string();
                assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
            }
        }
    }

    /// SIGTERM to every process; they go on until [`Gateway::ended`].
    pub fn terminate(&self) {
        self.signal("", "TERM");
    }

    /// Waits for the end of every process; gives the first status that is no success, if there is one.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut worst: Option<ExitStatus> = None;
        for process in &mut self.processes {
            let Some(mut child) = process.child.take() else { continue };
            let status = eventually("the process ends", SOON, || {
                let status = child.try_wait().unwrap();
                async move { status }
            });
            let status = status.await.unwrap();
            worst = worst.filter(|known| !known.success()).or(Some(status));
        }
        worst.unwrap()
    }

    /// The processes of `role`, for [`Gateway::restart`].
    pub fn processes_of(&self, role: &str) -> Vec<usize> {
        (0..self.processes.len()).filter(|index| self.processes[*index].role == role).collect()
    }

    /// Ends one process with SIGTERM and starts it again once it is gone.
    pub async fn restart(&mut self, index: usize) {
        let mut child = self.processes[index].child.take().unwrap();
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let ended = eventually("the process ends", SOON, || {
            let status = child.try_wait().unwrap();
            async move { status }
        });
        assert!(ended.await.unwrap().success());
        self.spawn_one(index);
        self.ready(index).await;
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The metrics of every process.
    pub async fn metrics(&self) -> String {
        let mut all = String::new();
        for process in &self.processes {
            let answer = self.client.get(format!("{}/metrics", process.url)).send().await.unwrap();
            all.push_str(&answer.text().await.unwrap());
        }
        all
    }

    /// How much memory the first process of `role` holds.
    pub fn resident_bytes(&self, role: &str) -> u64 {
        let process = self.processes.iter().find(|it| it.role == role).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Where each process of `role` is reached.
    pub fn urls(&self, role: &str) -> Vec<String> {
        self.processes.iter().filter(|it| it.role == role).map(|it| it.url.clone()).collect()
    }

    /// An environment variable for the next [`Gateway::spawn`].
    pub fn set_var(&mut self, name: &str, value: &str) {
        self.vars.push((name.into(), value.into()));
    }

    /// From its next start on, the wall clock of one process is off by `skew`, such as `+10m`. `false`, said visibly, without
    /// the library that does it.
    pub fn skew(&mut self, index: usize, skew: &str) -> bool {
        let find = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output().unwrap();
        let Some(library) = String::from_utf8(find.stdout).unwrap().lines().next().map(str::to_owned) else {
            assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "libfaketime is missing");
            skipped("no libfaketime (package faketime), so no clock was wrong");
            return false;
        };
        let vars = [("LD_PRELOAD", library), ("FAKETIME", skew.to_owned()), ("DONT_FAKE_MONOTONIC", "1".to_owned())];
        self.processes[index].vars = vars.into();
        true
    }

    /// By how many seconds the clock of one process is ahead of ours, by the `Date` of its answers.
    pub async fn clock_offset(&self, index: usize) -> i64 {
        let answer = self.client.get(format!("{}/healthz", self.processes[index].url)).send().await.unwrap();
        let date = answer.headers()["date"].to_str().unwrap().to_owned();
        let seconds = Command::new("date").args(["-d", &date, "+%s"]).output().unwrap().stdout;
        let theirs: i64 = String::from_utf8(seconds).unwrap().trim().parse().unwrap();
        theirs - SystemClock.now().unix_seconds()
    }

    /// Where the gateway's database is.
    pub fn database_url(&self) -> String {
        match &self.database {
            None => format!("sqlite:{}", self.folder.path().join("gateway.db").display()),
            Some(database) => database.url(),
        }
    }

    /// The gateway's database, beside the running processes.
    pub async fn store(&self) -> Store {
        let config = StoreConfig { url: Secret::new(self.database_url()), max_connections: 2 };
        Store::connect(&config, Arc::new(SystemClock), &TaskTracker::new()).await.unwrap()
    }

    /// Its PostgreSQL database, if it has one.
    pub fn database(&self) -> Option<&TestDatabase> {
        self.database.as_ref()
    }

    /// Where it is on RabbitMQ, Redis and S3, if it is there.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Puts `jobs` meshes with this prompt into the queue, as if the first account had submitted them one after the other.
    pub fn backlog(&self, jobs: usize, prompt: &str) {
        let deadline = "4102444800000"; // The year 2100.
        self.database.as_ref().unwrap().run(&format!(
            "INSERT INTO jobs (id, account_id, key_id, request_id, modality, model, provider, status, params, created_at, \
             updated_at, deadline_at, cost, version, price, payer_id) SELECT 'job_' || n, a.id, 'key', 'req', '3d', 'sandbox/3d', 'sandbox', \
             'queued', '{{\"prompt\":\"{prompt}\"}}', 1, 1, {deadline}, 0, 1, 0, a.id FROM accounts a, generate_series(1, {jobs}) n; \
             INSERT INTO reservations (id, account_id, amount, state, created_at) SELECT id, account_id, 0, 'held', 1 FROM jobs; \
             INSERT INTO tasks (id, kind, queue, ref_id, account_id, state, priority, fair_seq, run_at, phase, attempt, \
             crash_count, lease_epoch) SELECT 'task_' || n, 'generate', '3d', 'job_' || n, a.id, 'ready', 0, n, 1, 'new', 0, 0, 0 \
             FROM accounts a, generate_series(1, {jobs}) n; \
             INSERT INTO queue_tenants SELECT '3d', id, {jobs} FROM accounts;"
        ));
    }

    /// Makes another account; gives its key.
    pub async fn other_account(&self) -> String {
        self.other_account_in(&self.store().await).await
    }

    /// The same in a database that is not the one the gateway was given first.
    pub async fn other_account_in(&self, store: &Store) -> String {
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
        store.create_account(&account).await.unwrap();
        key.text.expose().to_owned()
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
