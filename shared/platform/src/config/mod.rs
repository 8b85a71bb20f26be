//! The configuration: TOML file < environment < flags. [`load`](load::load) puts it together once, at start.
//!
//! `docs/configuration.md` lists every setting; a test holds it to [`mod@reference`].

mod environment;
mod file;
mod load;
mod prices;
pub mod reference;
mod sections;
mod split;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aig_domain::Secret;
use aig_files::S3Config;
use aig_inference::Defaults;
use aig_providers::{PriceConfig, ProviderConfig};
use aig_store::StoreConfig;
use ipnet::IpNet;

pub use load::{Flags, load};
pub use sections::{Chat, Server, Tasks, Tiers, Worker};
pub use split::SplitRole;

/// How many connections one process opens to PostgreSQL.
const MAX_CONNECTIONS: u32 = 16;

/// Why the configuration makes no sense. The message says where, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Which broker rings for workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerUrl {
    /// The one in this process.
    Memory,
    /// RabbitMQ: `amqp://…` or `amqps://…`; may hold a password.
    Amqp(Secret),
}

/// Where rate limits are counted and signals go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheUrl {
    /// In this process.
    Memory,
    /// Redis: `redis://…` or `rediss://…`; may hold a password.
    Redis(Secret),
}

/// Where result files are kept.
#[derive(Clone, Debug)]
pub enum FilesUrl {
    /// A folder: of this machine, or shared by all of them.
    Directory(PathBuf),
    /// A bucket of any server that speaks S3.
    S3(S3Config),
}

/// The configuration of a process, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything lives that has no URL of its own.
    pub data_dir: PathBuf,
    /// Where the API listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What links are made of; `None` means `http://` and the address listened on.
    pub public_url: Option<String>,
    /// What file links are made of; `None` means the public URL.
    pub media_url: Option<String>,
    /// `sqlite:…` or `postgres://…`; `None` means `gateway.db` in the data folder.
    pub database_url: Option<Secret>,
    /// Which broker rings for workers.
    pub broker: BrokerUrl,
    /// Where rate limits are counted and signals go.
    pub cache: CacheUrl,
    /// Where result files are kept; `None` means `files` in the data folder.
    pub files: Option<FilesUrl>,
    /// What the names of queues and cache keys begin with.
    pub prefix: String,
    /// Where workers and schedulers answer `/healthz`, `/readyz` and `/metrics`; `None` means nowhere.
    pub health_listen: Option<SocketAddr>,
    /// `kid:base64`, comma list; `None` means `secret-key` in the data folder.
    pub secret_key: Option<Secret>,
    /// What tenants' URLs may reach besides public addresses; `None` means the default.
    pub private_targets: Option<Vec<IpNet>>,
    /// Which log lines are written, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// Whether log lines are JSON; `None` means unless stderr is a terminal.
    pub log_json: Option<bool>,
    /// The providers besides the sandbox.
    pub providers: Vec<ProviderConfig>,
    /// The models of requests that name none.
    pub defaults: Defaults,
    /// Deadlines of jobs by model id, where the operator set them.
    pub deadlines: HashMap<String, Duration>,
    /// The margin, and the prices and limits that the operator set.
    pub prices: PriceConfig,
    /// How often the imported prices are read.
    pub price_reload: Duration,
    /// The HTTP server.
    pub server: Server,
    /// Rate limits.
    pub tiers: Tiers,
    /// Chat calls.
    pub chat: Chat,
    /// Workers.
    pub worker: Worker,
    /// The task engine.
    pub tasks: Tasks,
}

impl Config {
    /// Where the database is.
    pub fn store(&self) -> StoreConfig {
        let embedded = || Secret::new(format!("sqlite:{}", self.data_dir.join("gateway.db").display()));
        StoreConfig { url: self.database_url.clone().unwrap_or_else(embedded), max_connections: MAX_CONNECTIONS }
    }

    /// The file of the embedded database, which only one process may open; `None` on PostgreSQL.
    pub fn embedded_database(&self) -> Option<PathBuf> {
        let store = self.store();
        let path = store.url.expose().strip_prefix("sqlite:")?;
        let path = path.strip_prefix("//").unwrap_or(path);
        Some(PathBuf::from(path.split('?').next().unwrap_or(path)))
    }

    /// Whether the database is the embedded one.
    pub fn is_embedded(&self) -> bool {
        self.embedded_database().is_some()
    }

    /// Where result files are kept.
    pub fn files(&self) -> FilesUrl {
        self.files.clone().unwrap_or_else(|| FilesUrl::Directory(self.data_dir.join("files")))
    }

    /// What tenants' URLs may reach besides public addresses: this machine, when the gateway serves only this machine.
    pub fn private_targets(&self) -> Vec<IpNet> {
        let loopback = || ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect();
        match &self.private_targets {
            Some(nets) => nets.clone(),
            None if self.listen.ip().is_loopback() => loopback(),
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
