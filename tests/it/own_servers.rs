//! Servers that a test starts for itself, to stop, starve or restart them without harm to its neighbours. They end with it.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aig_testkit::eventually;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::servers::{free_port, unique};

/// How long a server may take to start on a busy machine.
const START: Duration = Duration::from_mins(2);

/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// A child that is killed with the test.
struct Server(Option<Child>);

impl Server {
    fn start(command: &mut Command) -> Self {
        Self(Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()))
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Sends `signal` and waits until the process is gone.
    fn stop(&mut self, signal: &str) {
        self.signal(signal);
        self.0.take().unwrap().wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.0 else { return };
        // RabbitMQ's script ends its node on SIGTERM alone; PostgreSQL would wait for its clients, so it is not asked twice.
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let begun = Instant::now();
        while begun.elapsed() < END && !matches!(child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(50));
        }
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

async fn listens(port: u16) {
    eventually("the server listens", START, || async { TcpStream::connect(("127.0.0.1", port)).await.ok() })
        .await
        .unwrap();
}

/// A Redis that keeps nothing on disk.
pub struct OwnRedis {
    server: Server,
    pub port: u16,
}

impl OwnRedis {
    pub fn start() -> Self {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        Self { server: Server::start(&mut command), port }
    }

    pub fn signal(&self, signal: &str) {
        self.server.signal(signal);
    }

    pub fn flush(&self) {
        let mut cli = Command::new("redis-cli");
        assert!(cli.args(["-p", &self.port.to_string(), "flushall"]).output().unwrap().status.success());
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // A stopped process hears of its end only when it goes on.
        self.server.signal("-CONT");
    }
}

/// A RabbitMQ node with a folder and a cookie of its own.
pub struct OwnRabbit {
    folder: TempDir,
    node: String,
    port: u16,
    distribution: u16,
    server: Server,
}

impl OwnRabbit {
    pub async fn start() -> Self {
        let node = format!("aig{}@localhost", unique());
        let mut rabbit = Self {
            folder: tempfile::tempdir().unwrap(),
            node,
            port: free_port(),
            distribution: free_port(),
            server: Server(None),
        };
        rabbit.restart().await;
        rabbit
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Stops the node as an operator would.
    pub fn stop(&mut self) {
        self.server.stop("-TERM");
    }

    /// Starts the node on what it kept; returns when it listens.
    pub async fn restart(&mut self) {
        self.server = Server::start(&mut self.command("rabbitmq-server"));
        listens(self.port).await;
    }

    /// Runs `rabbitmqctl` on the node.
    pub async fn control(&self, args: &[&str]) {
        let mut command = self.command("rabbitmqctl");
        command.arg("-q").args(args);
        let run = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(run.status.success(), "rabbitmqctl {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    }

    /// One of RabbitMQ's programs; not the wrappers on the path, which change the user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new("/usr/lib/rabbitmq/bin").join(program));
        let path = |name: &str| self.folder.path().join(name);
        command.env("HOME", self.folder.path()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODENAME", &self.node).env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODE_PORT", self.port.to_string());
        command.env("RABBITMQ_DIST_PORT", self.distribution.to_string());
        command.env("RABBITMQ_MNESIA_BASE", path("data")).env("RABBITMQ_LOG_BASE", path("log"));
        command.env("RABBITMQ_CONFIG_FILE", path("none")).env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"));
        command
    }
}

/// A PostgreSQL cluster with nothing but the database `postgres` in it.
pub struct OwnPostgres {
    folder: TempDir,
    port: u16,
    server: Server,
}

impl OwnPostgres {
    pub async fn start() -> Self {
        let mut postgres = Self { folder: tempfile::tempdir().unwrap(), port: free_port(), server: Server(None) };
        if is_root() {
            // PostgreSQL refuses to run as root.
            let id = |flag| Command::new("id").args([flag, "postgres"]).output().unwrap().stdout;
            let number = |flag| String::from_utf8(id(flag)).unwrap().trim().parse().unwrap();
            chown(postgres.folder.path(), Some(number("-u")), Some(number("-g"))).unwrap();
        }
        let mut init = postgres.command("initdb");
        init.arg("-D").arg(postgres.data()).args(["-A", "trust", "-U", "postgres", "-N"]);
        assert!(init.stdout(Stdio::null()).status().unwrap().success());
        postgres.restart().await;
        postgres
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Stops it at once, without a checkpoint: it recovers from its log when it starts again.
    pub fn stop_at_once(&mut self) {
        self.server.stop("-QUIT");
    }

    /// Starts it; returns when it listens, which may be before it has recovered.
    pub async fn restart(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"]);
        self.server = Server::start(command.arg(self.folder.path()));
        listens(self.port).await;
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = newest(program);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        if self.server.0.is_some() {
            // At once, whoever is connected; what comes after this would wait for them.
            self.server.signal("-INT");
        }
    }
}

/// The newest `program` of Debian's versions.
fn newest(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    versions
        .map(|version| version.unwrap().path().join("bin").join(program))
        .filter(|path| path.exists())
        .max()
        .unwrap()
}

pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}
