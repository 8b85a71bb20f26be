//! What a test borrows of the real servers: a database, a prefix for queues and cache keys, a folder in the bucket. Each is its
//! own, and is removed with the test.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use futures_util::{StreamExt as _, TryStreamExt as _};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use object_store::ObjectStore as _;
use object_store::aws::AmazonS3Builder;

const AMQP: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";
const REDIS: &str = "redis://127.0.0.1:6379";
const S3: &str = "s3://aigateway-tests?endpoint=http://127.0.0.1:9000&region=us-east-1";
const QUEUES: [&str; 4] = ["video", "music", "3d", "webhook"];

/// Whether the scenarios run on processes of their own for each role.
pub fn is_distributed() -> bool {
    std::env::var("AIG_TEST_COMPOSITION").is_ok_and(|composition| composition == "distributed")
}

/// Says visibly that a test did not run.
pub fn skipped(why: &str) {
    note(&format!("SKIPPED: {why}"));
}

/// Says something visibly, whether the test passes or not.
pub fn note(what: &str) {
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}

fn configured(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// A word that no other test has.
pub fn unique() -> String {
    let file = tempfile::Builder::new().prefix("x").rand_bytes(12).tempfile_in(std::env::temp_dir()).unwrap();
    file.path().file_name().unwrap().to_string_lossy().to_lowercase()
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A PostgreSQL database of its own, dropped with the test.
pub struct TestDatabase {
    server: String,
    pub name: String,
}

impl TestDatabase {
    /// Makes one; `None`, said visibly, when there is no PostgreSQL.
    pub fn create() -> Option<Self> {
        let server = configured("AIG_TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres");
        let name = format!("aig_it_{}", unique());
        if psql(&server, &format!("CREATE DATABASE {name}")) {
            return Some(Self { server, name });
        }
        assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "no PostgreSQL at {server}");
        skipped("no PostgreSQL; run deploy/services up");
        None
    }

    pub fn url(&self) -> String {
        let mut url: reqwest::Url = self.server.parse().unwrap();
        url.set_path(&self.name);
        url.into()
    }

    /// Runs statements in it.
    pub fn run(&self, sql: &str) {
        assert!(psql(&self.url(), sql), "{sql}");
    }

    /// The one number that a query gives.
    pub fn number(&self, sql: &str) -> u64 {
        let output = Command::new("psql").args(["-qAt", "-d", &self.url(), "-c", sql]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse().unwrap_or_else(|_| panic!("{sql}: {text} {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Cuts all connections to it.
    pub fn cut(&self) {
        let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", self.name);
        assert!(psql(&self.server, &sql));
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Best effort: a database that stays behind is seen by nobody.
        psql(&self.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

fn psql(server: &str, sql: &str) -> bool {
    let mut psql = Command::new("psql");
    psql.args(["-q", "-d", server, "-c", sql]).stderr(Stdio::null()).stdout(Stdio::null());
    psql.status().is_ok_and(|status| status.success())
}

/// A place on RabbitMQ, Redis and S3.
pub struct Place {
    pub prefix: String,
    amqp: String,
}

impl Place {
    pub fn new() -> Self {
        Self { prefix: format!("{}.", unique()), amqp: configured("AIG_TEST_AMQP_URL", AMQP) }
    }

    /// The variables by which a gateway finds it.
    pub fn vars(&self) -> Vec<(String, String)> {
        let s3 =
            configured("AIG_TEST_S3_URL", S3).replacen('?', &format!("/{}?", self.prefix.trim_end_matches('.')), 1);
        let vars = [
            ("AIG_BROKER_URL", self.amqp.clone()),
            ("AIG_CACHE_URL", configured("AIG_TEST_REDIS_URL", REDIS)),
            ("AIG_FILES_URL", s3),
            ("AIG_PREFIX", self.prefix.clone()),
            ("AWS_ACCESS_KEY_ID", configured("AIG_TEST_S3_ACCESS_KEY_ID", "aigateway-tests")),
            ("AWS_SECRET_ACCESS_KEY", configured("AIG_TEST_S3_SECRET_ACCESS_KEY", "aigateway-tests")),
        ];
        vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (amqp, prefix) = (self.amqp.clone(), self.prefix.clone());
        // A thread, since a test's own runtime must not be blocked on. Best effort: what stays behind is seen by nobody.
        let cleaner = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let _ = delete_queues(&amqp, &prefix).await;
                let _ = delete_files(&prefix).await;
            });
        });
        let _ = cleaner.join();
    }
}

/// How many messages wait in the queue `name` of a place.
pub async fn messages_in(place: &Place, name: &str) -> u32 {
    let connection = lapin::Connection::connect(&place.amqp, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = format!("{}{name}", place.prefix);
    let count = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count();
    connection.close(200, "bye".into()).await.unwrap();
    count
}

async fn delete_queues(amqp: &str, prefix: &str) -> lapin::Result<()> {
    let connection = lapin::Connection::connect(amqp, lapin::ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for queue in QUEUES {
        channel.queue_delete(format!("{prefix}{queue}").into(), QueueDeleteOptions::default()).await?;
    }
    connection.close(200, "bye".into()).await
}

async fn delete_files(prefix: &str) -> object_store::Result<()> {
    let url: reqwest::Url = configured("AIG_TEST_S3_URL", S3).parse().unwrap();
    let parameter = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let store = AmazonS3Builder::new()
        .with_bucket_name(url.host_str().unwrap_or_default())
        .with_endpoint(parameter("endpoint").unwrap_or_default())
        .with_region(parameter("region").unwrap_or_default())
        .with_allow_http(true)
        .with_access_key_id(configured("AIG_TEST_S3_ACCESS_KEY_ID", "aigateway-tests"))
        .with_secret_access_key(configured("AIG_TEST_S3_SECRET_ACCESS_KEY", "aigateway-tests"))
        .build()?;
    let files = store.list(Some(&prefix.trim_end_matches('.').into())).map_ok(|file| file.location).boxed();
    store.delete_stream(files).try_collect::<Vec<_>>().await.map(drop)
}
