//! A fresh database per test, of either kind, and a clock that the test moves.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aig_domain::caps::Payer;
use aig_domain::catalog::Modality;
use aig_domain::job::{Job, JobResult, JobStatus, Outcome};
use aig_domain::{Clock, Millis, Nano, Secret, id};
use aig_store::{
    Accepted, ClaimRequest, Claimed, Idempotency, JobEnd, JobEndTarget, NewAccount, NewEvent, NewJob, Step, StepKind,
    Store, StoreConfig,
};
use futures_util::FutureExt as _;
use sqlx::{Connection as _, PgConnection};
use tokio_util::task::TaskTracker;

/// Time stands still unless a test moves it.
pub struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

impl TestClock {
    pub fn forward(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

/// A store on an empty, migrated database.
pub struct TestStore {
    pub store: Store,
    pub clock: Arc<TestClock>,
    pub config: StoreConfig,
}

#[derive(Clone, Copy)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// Makes one test per database out of an `async fn(&TestStore)`.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite { $(#[test] fn $name() { crate::support::run(crate::support::Kind::Sqlite, |t| Box::pin(super::$name(t))); })+ }
        mod postgres { $(#[test] fn $name() { crate::support::run(crate::support::Kind::Postgres, |t| Box::pin(super::$name(t))); })+ }
    };
}
pub(crate) use both;

/// The same for what only PostgreSQL has.
macro_rules! postgres {
    ($($name:ident),+ $(,)?) => {
        mod postgres { $(#[test] fn $name() { crate::support::run(crate::support::Kind::Postgres, |t| Box::pin(super::$name(t))); })+ }
    };
}
pub(crate) use postgres;

type Body = for<'a> fn(&'a TestStore) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

pub fn run(kind: Kind, body: Body) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                with_store(format!("sqlite:{}", folder.path().join("test.db").display()), body).await;
            }
            Kind::Postgres => on_postgres(body).await,
        }
    });
}

async fn on_postgres(body: Body) {
    let server = std::env::var("AIG_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable".into());
    let mut admin = match PgConnection::connect(&server).await {
        Ok(admin) => admin,
        Err(error) if std::env::var("AIG_TEST_REFUSE_SKIP").is_ok() => panic!("no PostgreSQL at {server}: {error}"),
        Err(_) => {
            // Not `eprintln!`: the test harness would swallow it.
            std::io::stderr().write_all(b"SKIPPED: no PostgreSQL; run deploy/services up\n").unwrap();
            return;
        }
    };
    let name = id::new("aig_test_", aig_domain::clock::SystemClock.now());
    execute(&mut admin, format!("CREATE DATABASE {name}")).await;
    let mut url: url::Url = server.parse().unwrap();
    url.set_path(&name);
    let outcome = AssertUnwindSafe(with_store(url.to_string(), body)).catch_unwind().await;
    execute(&mut admin, format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn execute(connection: &mut PgConnection, sql: String) {
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

async fn with_store(url: String, body: Body) {
    let clock = Arc::new(TestClock(AtomicI64::new(1_800_000_000_000)));
    let config = StoreConfig { url: Secret::new(url), max_connections: 8 };
    let tracker = TaskTracker::new();
    let store = Store::connect(&config, clock.clone(), &tracker).await.unwrap();
    store.migrate().await.unwrap();
    let test = TestStore { store, clock, config };
    body(&test).await;
    test.store.close().await;
    tracker.close();
    tracker.wait().await;
}

impl TestStore {
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// A second store on the same database.
    pub async fn reopen(&self) -> Store {
        Store::connect(&self.config, self.clock.clone(), &TaskTracker::new()).await.unwrap()
    }

    /// A video job of `account`, not stored yet.
    pub fn job(&self, account: &str) -> NewJob {
        let now = self.now();
        NewJob {
            job: Job {
                id: id::new("job_", now),
                account_id: account.into(),
                payer_id: account.into(),
                key_id: "key_1".into(),
                request_id: id::new("req_", now),
                modality: Modality::Video,
                model: "sandbox/video".into(),
                provider: "sandbox".into(),
                status: JobStatus::Queued,
                params: r#"{"prompt":"a cat"}"#.into(),
                tag: Some("t".into()),
                metadata: Some(r#"{"a":1}"#.into()),
                webhook_url: Some("https://example.com/hook".into()),
                progress: None,
                created_at: now,
                updated_at: now,
                completed_at: None,
                cancelled_at: None,
                deadline_at: now.plus(Duration::from_mins(30)),
                expires_at: None,
                error: None,
                result: None,
                price: Nano(20),
                cost: Nano::ZERO,
                version: 1,
            },
            payer: payer(account),
            price: None,
            task_id: id::new("task_", now),
            idempotency: None,
        }
    }

    /// The same with an idempotency key.
    pub fn keyed_job(&self, account: &str, key: &str, body: &str) -> NewJob {
        let idempotency = Idempotency {
            route: "POST /v1/videos/generations",
            key: key.into(),
            body_sha256: body.into(),
            expires_at: self.now().plus(Duration::from_hours(1)),
        };
        NewJob { idempotency: Some(idempotency), ..self.job(account) }
    }

    /// Runs a statement that the store itself has no use for.
    pub async fn execute(&self, sql: &'static str) {
        let url = self.config.url.expose();
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
    }

    /// Reads rows that the store itself has no use for.
    pub async fn rows<R>(&self, sql: &'static str) -> Vec<R>
    where
        R: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow> + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
        R: Send + Unpin,
    {
        let url = self.config.url.expose();
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
            sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
        }
    }

    /// Makes the account `id`, unless it is there.
    pub async fn account(&self, id: &str) {
        if self.store.webhook_secrets(id).await.is_err() {
            let new = NewAccount {
                id: id.into(),
                name: id.into(),
                tier: "unlimited".into(),
                webhook_secret: format!("sealed for {id}"),
                keys: Vec::new(),
            };
            self.store.create_account(&new).await.unwrap();
        }
    }

    /// Accepts a job of `account`, which is made if it is not there.
    pub async fn accept(&self, account: &str) -> Job {
        self.account(account).await;
        match self.store.accept_job(self.job(account)).await.unwrap() {
            Accepted::New(job) => *job,
            other => panic!("{other:?}"),
        }
    }

    pub async fn claim_from(&self, queue: &'static str, worker: &str, limit: u32) -> Vec<Claimed> {
        let claim_id = id::new("claim_", self.now());
        self.store.claim(ClaimRequest { claim_id, worker: worker.into(), queue, limit }).await.unwrap()
    }

    pub async fn claim(&self, limit: u32) -> Vec<Claimed> {
        self.claim_from("video", "worker_1", limit).await
    }

    pub async fn step(&self, claimed: &Claimed, kind: StepKind) -> bool {
        self.store.step(Step { lease: claimed.lease.clone(), kind, now: self.now() }).await.unwrap()
    }

    /// The end of `job` with `outcome`, with the event for its webhook.
    pub fn end(&self, target: JobEndTarget, job: &Job, outcome: &Outcome) -> JobEnd {
        let now = self.now();
        let event = NewEvent {
            id: id::new("evt_", now),
            task_id: id::new("task_", now),
            url: "https://example.com/hook".into(),
            body: "{}".into(),
            claim: None,
        };
        JobEnd { target, job: job.clone().ended(outcome, now), event: Some(event) }
    }
}

pub fn completed() -> Outcome {
    Outcome::Completed(JobResult {
        filename: "video.mp4".into(),
        content_type: "video/mp4".into(),
        bytes: 3,
        sha256: "00".into(),
        duration: Some(4.0),
        resolution: None,
        file_key: "jobs/x/1/video.mp4".into(),
    })
}

/// The job of a claimed generate task.
pub fn job_of(claimed: &Claimed) -> &Job {
    match &claimed.work {
        aig_store::Work::Generate { job, .. } => job,
        aig_store::Work::Webhook { event, .. } => panic!("{event:?}"),
    }
}

/// Who pays for the requests of `account`'s one key.
pub fn payer(account: &str) -> Payer {
    Payer { account_id: account.into(), sub_account_id: None, key_id: format!("key_{account}"), tag: Some("t".into()) }
}
