//! A Redis server of a test's own, to be frozen, killed and started again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use aig_testkit::eventually;

use crate::support::{Redis, SOON, skip};

/// A server that ends with the test.
pub struct Server {
    port: u16,
    child: Option<Child>,
}

/// A Redis that nobody has started yet, on a port that was free; `None` when Redis is not installed, which was said then.
pub fn absent() -> Option<(Server, Redis)> {
    let installed = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if installed.is_err() {
        skip("redis-server is not installed");
        return None;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let redis = Redis::at(&format!("redis://127.0.0.1:{port}"));
    Some((Server { port, child: None }, redis))
}

/// A Redis that runs.
pub async fn running() -> Option<(Server, Redis)> {
    let (mut server, redis) = absent()?;
    server.start(&redis).await;
    Some((server, redis))
}

impl Server {
    /// Starts it, and waits until it answers.
    pub async fn start(&mut self, redis: &Redis) {
        let port = self.port.to_string();
        // In a folder where nothing can be saved, which a test of failed saves needs.
        let arguments = ["--port", &port, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", "/proc"];
        let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        let client = redis::Client::open(redis.config.url.expose()).unwrap();
        let answers = || async { client.get_multiplexed_async_connection().await.ok() };
        eventually("the server answers", SOON, answers).await.unwrap();
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a command of an operator.
pub async fn command(redis: &Redis, words: &[&str]) {
    let mut connection = redis.connection().await;
    redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut connection).await.unwrap();
}

/// Makes Redis refuse writes because it could not save.
pub async fn cannot_save(redis: &Redis) {
    command(redis, &["CONFIG", "SET", "save", "3600 1"]).await;
    command(redis, &["BGSAVE"]).await;
    let connection = redis.connection().await;
    let refused = || async { redis::cmd("SET").arg(&["any", "thing"]).exec_async(&mut connection.clone()).await.err() };
    eventually("writes are refused", SOON, refused).await.unwrap();
}

/// How often a command was called, refused calls included.
pub async fn calls(redis: &Redis, name: &str) -> u32 {
    let mut connection = redis.connection().await;
    let told: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let line = told.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:"))).unwrap_or_default();
    let number = |of: &str| line.split(of).nth(1)?.split(',').next()?.parse::<u32>().ok();
    number(":calls=").unwrap_or(0) + number(",rejected_calls=").unwrap_or(0)
}
