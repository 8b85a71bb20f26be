//! Whether a process should get work: not while it stops, and not while a part that everything needs is down.
//!
//! The broker and the cache are told of, and yet leave a process ready: jobs are accepted without RabbitMQ, and limits fall to a
//! local share without Redis. The answer names the parts and never why they fail; the log does.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{App, Shutdown};

/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which parts work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`, `stopping` or `unavailable`.
    #[schema(value_type = String)]
    pub status: &'static str,
    /// `ok` or `failed`.
    #[schema(value_type = String)]
    pub database: &'static str,
    /// `ok` or `failed`.
    #[schema(value_type = String)]
    pub files: &'static str,
    /// `ok`, or `failed`: then jobs are accepted, and workers look for them by themselves.
    #[schema(value_type = String)]
    pub broker: &'static str,
    /// `ok`, or `degraded`: then each process counts its share of the rate limits.
    #[schema(value_type = String)]
    pub cache: &'static str,
}

impl Readiness {
    /// Whether the process should get work.
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }

    /// Asks every part.
    pub async fn of(app: &App, shutdown: &Shutdown) -> Self {
        let database = async {
            app.store.ping().await?;
            if app.is_verified() {
                Ok(())
            } else {
                Err(anyhow::anyhow!("its schema and secret key are not verified yet"))
            }
        };
        let (database, files, broker) = tokio::join!(
            probe("database", database),
            probe("files", app.files.check()),
            probe("broker", app.broker.check()),
        );
        let cache = app.limiter.degraded().is_none();
        Self::verdict(shutdown.is_stopping(), &Parts { database, files, broker, cache })
    }

    fn verdict(stopping: bool, parts: &Parts) -> Self {
        let Parts { database, files, broker, cache } = *parts;
        let word = |fine| if fine { "ok" } else { "failed" };
        let status = match (stopping, database && files) {
            (true, _) => "stopping",
            (false, true) => "ready",
            (false, false) => "unavailable",
        };
        let cache = if cache { "ok" } else { "degraded" };
        Self { status, database: word(database), files: word(files), broker: word(broker), cache }
    }
}

/// Which parts answered.
#[expect(clippy::struct_excessive_bools, reason = "one for each part")]
struct Parts {
    database: bool,
    files: bool,
    broker: bool,
    cache: bool,
}

async fn probe<E: Display>(part: &'static str, check: impl Future<Output = Result<(), E>>) -> bool {
    let failed = match tokio::time::timeout(PATIENCE, check).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => error.to_string(),
        Err(_late) => "no answer in time".to_owned(),
    };
    tracing::warn!(part, failed, "a part does not work");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_process_that_goes_on_is_ready() {
        for (stopping, database, files, status) in [
            (false, true, true, "ready"),
            (true, true, true, "stopping"),
            (false, false, true, "unavailable"),
            (false, true, false, "unavailable"),
        ] {
            let parts = Parts { database, files, broker: true, cache: true };
            assert_eq!(Readiness::verdict(stopping, &parts).status, status);
        }
    }

    #[test]
    fn without_broker_or_cache_a_process_is_ready_and_says_so() {
        let parts = Parts { database: true, files: true, broker: false, cache: false };
        let readiness = Readiness::verdict(false, &parts);
        assert!(readiness.is_ready());
        assert_eq!((readiness.broker, readiness.cache), ("failed", "degraded"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_has_failed() {
        assert!(!probe("x", std::future::pending::<Result<(), String>>()).await);
        assert!(!probe("x", std::future::ready(Err("down"))).await);
        assert!(probe("x", std::future::ready(Ok::<_, String>(()))).await);
    }
}
