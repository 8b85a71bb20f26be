//! The numbers an operator may turn, with their defaults and floors. Each section is a table of `aigateway.toml`.

use std::num::NonZeroU32;
use std::time::Duration;

use aig_domain::task::QUEUES;
use aig_tasks::LeaseTimes;
use serde::Deserialize;

use super::ConfigError;

/// `[server]`: what a connection and a request may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The most connections at once.
    pub max_connections: u32,
    /// The most connections of one address; off unless set, since a reverse proxy is one address.
    pub max_connections_per_address: Option<u32>,
    /// How long a client may take to send its request's head.
    #[serde(rename = "header_timeout_seconds", deserialize_with = "seconds")]
    pub header_timeout: Duration,
    /// How long a client may take to send its request's body.
    #[serde(rename = "body_timeout_seconds", deserialize_with = "seconds")]
    pub body_timeout: Duration,
    /// The largest body of a chat request.
    pub max_chat_body_bytes: usize,
    /// The largest body of a job request.
    pub max_job_body_bytes: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: None,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(1),
            max_chat_body_bytes: 20 * 1024 * 1024,
            max_job_body_bytes: 1024 * 1024,
        }
    }
}

/// `[tiers]`: how many requests that cost money each key of an account may make a minute; 0 sets no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tiers {
    /// The first account's.
    pub unlimited: u32,
    /// Accounts that pay nothing.
    pub free: u32,
    /// Accounts that pay.
    pub paid: u32,
    /// Accounts with a contract.
    pub enterprise: u32,
}

impl Default for Tiers {
    fn default() -> Self {
        Self { unlimited: 0, free: 10, paid: 600, enterprise: 30_000 }
    }
}

impl Tiers {
    /// Requests per minute of that tier; `None` for no limit. A tier that nobody knows gets the least.
    pub fn per_minute(&self, tier: &str) -> Option<NonZeroU32> {
        NonZeroU32::new(match tier {
            "unlimited" => self.unlimited,
            "paid" => self.paid,
            "enterprise" => self.enterprise,
            _ => self.free,
        })
    }
}

/// `[chat]`: how long a chat call may be silent, and take.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chat {
    /// After this much silence a stream's client gets a comment.
    #[serde(rename = "keep_alive_seconds", deserialize_with = "seconds")]
    pub keep_alive: Duration,
    /// After this much silence of the upstream a call is given up.
    #[serde(rename = "idle_seconds", deserialize_with = "seconds")]
    pub idle: Duration,
    /// The longest call.
    #[serde(rename = "total_seconds", deserialize_with = "seconds")]
    pub total: Duration,
    /// A stream's response headers go out at the latest after this.
    #[serde(rename = "head_seconds", deserialize_with = "seconds")]
    pub head: Duration,
    /// A client that reads nothing for this long is cut off.
    #[serde(rename = "slow_reader_seconds", deserialize_with = "seconds")]
    pub slow_reader: Duration,
    /// The most tokens that an answer may have where a cap stands above the request and the client set no limit.
    pub capped_default_max_tokens: u64,
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(15),
            idle: Duration::from_mins(1),
            total: Duration::from_mins(10),
            head: Duration::from_secs(15),
            slow_reader: Duration::from_mins(1),
            capped_default_max_tokens: 4096,
        }
    }
}

/// `[worker]`: how much one worker process does at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// The queues it serves; all of them when empty.
    pub queues: Vec<String>,
    /// Steps per queue: submits, polls, downloads.
    pub concurrency: usize,
    /// Webhook deliveries.
    pub webhook_concurrency: usize,
    /// Jobs that wait between polls.
    pub parked_limit: usize,
    /// The largest result.
    pub max_result_bytes: u64,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            queues: Vec::new(),
            concurrency: 32,
            webhook_concurrency: 64,
            parked_limit: 10_000,
            max_result_bytes: 2 * 1024 * 1024 * 1024,
        }
    }
}

/// `[tasks]`: the rhythm of the task engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tasks {
    /// How often due tasks are looked for.
    dispatch_interval_ms: u64,
    /// How often tasks of dead workers are looked for.
    rescue_interval_ms: u64,
    /// How often results and rows are looked for whose time is over.
    retain_interval_ms: u64,
    /// How long a worker's lease is good; renewed after a third, and no new step after two thirds without renewal.
    lease_ms: u64,
    /// How often a submit is tried before the job fails.
    pub submit_attempts: u32,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            dispatch_interval_ms: 1000,
            rescue_interval_ms: 5000,
            retain_interval_ms: 60_000,
            lease_ms: 60_000,
            submit_attempts: 8,
        }
    }
}

impl Tasks {
    /// How often due tasks are looked for.
    pub fn dispatch_interval(&self) -> Duration {
        Duration::from_millis(self.dispatch_interval_ms)
    }

    /// How often tasks of dead workers are looked for.
    pub fn rescue_interval(&self) -> Duration {
        Duration::from_millis(self.rescue_interval_ms)
    }

    /// How often results and rows are looked for whose time is over.
    pub fn retain_interval(&self) -> Duration {
        Duration::from_millis(self.retain_interval_ms)
    }

    /// The times of a worker's lease.
    pub fn lease_times(&self) -> LeaseTimes {
        let good = Duration::from_millis(self.lease_ms);
        LeaseTimes { good, renew: good / 3, stop: good * 2 / 3 }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let floors = [
            ("tasks.dispatch_interval_ms", self.dispatch_interval_ms, 10),
            ("tasks.rescue_interval_ms", self.rescue_interval_ms, 50),
            ("tasks.retain_interval_ms", self.retain_interval_ms, 50),
            ("tasks.lease_ms", self.lease_ms, 3000),
            ("tasks.submit_attempts", u64::from(self.submit_attempts), 1),
        ];
        floors.into_iter().try_for_each(|(name, value, floor)| at_least(name, value, floor))
    }
}

impl Worker {
    /// The queues it serves.
    ///
    /// # Errors
    /// When one of the names is no queue.
    pub fn queues(&self) -> Result<Vec<&'static str>, ConfigError> {
        if self.queues.is_empty() {
            return Ok(QUEUES.to_vec());
        }
        let known = |name: &String| QUEUES.into_iter().find(|queue| queue == name);
        let found = self.queues.iter().map(|name| {
            known(name)
                .ok_or_else(|| ConfigError(format!("there is no queue `{name}`; there are {}", QUEUES.join(", "))))
        });
        found.collect()
    }
}

/// Holds all sections to their floors.
pub(super) fn check(server: &Server, worker: &Worker, tasks: &Tasks) -> Result<(), ConfigError> {
    at_least("server.max_connections", u64::from(server.max_connections), 1)?;
    worker.queues()?;
    at_least("worker.concurrency", worker.concurrency as u64, 1)?;
    at_least("worker.webhook_concurrency", worker.webhook_concurrency as u64, 1)?;
    tasks.check()
}

fn at_least(name: &str, value: u64, floor: u64) -> Result<(), ConfigError> {
    if value >= floor { Ok(()) } else { Err(ConfigError(format!("{name} is {value}; it must be at least {floor}"))) }
}

/// Seconds, whole or not, above zero and at most a day.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if value.is_finite() && value > 0.0 && value <= 86_400.0 {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(serde::de::Error::custom("expected a number of seconds above 0, at most 86400"))
    }
}
