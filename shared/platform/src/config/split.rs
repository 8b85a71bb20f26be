//! Roles in processes of their own: what such a process cannot do without.

use super::{BrokerUrl, CacheUrl, Config, ConfigError};

/// A role that runs alone in its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitRole {
    /// Answers HTTP.
    Api,
    /// Works on tasks.
    Worker,
    /// Watches the clock.
    Scheduler,
}

impl SplitRole {
    /// The subcommand.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }
}

impl Config {
    /// Refuses what cannot work when roles run in processes of their own.
    ///
    /// # Errors
    /// What to set.
    pub fn check_split(&self, role: SplitRole) -> Result<(), ConfigError> {
        let missing = if self.is_embedded() {
            "set AIG_DATABASE_URL=postgres://…: SQLite serves one process"
        } else if self.broker == BrokerUrl::Memory {
            "set AIG_BROKER_URL=amqp://…: the broker in memory rings in one process only"
        } else if self.cache == CacheUrl::Memory {
            "set AIG_CACHE_URL=redis://…: rate limits and signals in memory end at the process"
        } else if self.files.is_none() {
            "set AIG_FILES_URL=s3://… or file:///a-shared-folder: every process must find the same files"
        } else if self.public_url.is_none() {
            "set AIG_PUBLIC_URL: links that workers make must lead to the API"
        } else {
            return Ok(());
        };
        Err(ConfigError(format!(
            "`aigateway {}` cannot run like this; {missing}. `aigateway` alone runs everything in one process",
            role.as_str()
        )))
    }
}
