//! `GET /readyz`: whether this process should get requests: not while it stops, and not while a part that every request
//! needs is down. Anybody may ask, so the answer names the parts and never why they fail; the log does.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Api;

/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which parts work.
#[derive(Serialize, ToSchema)]
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
}

async fn probe<E: Display>(part: &'static str, check: impl Future<Output = Result<(), E>>) -> bool {
    let failed = match tokio::time::timeout(PATIENCE, check).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => error.to_string(),
        Err(_late) => "no answer in time".to_owned(),
    };
    tracing::warn!(part, failed, "not ready");
    false
}

fn verdict(stopping: bool, database: bool, files: bool) -> (StatusCode, Readiness) {
    let word = |fine| if fine { "ok" } else { "failed" };
    let status = match (stopping, database && files) {
        (true, _) => "stopping",
        (false, true) => "ready",
        (false, false) => "unavailable",
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Readiness { status, database: word(database), files: word(files) })
}

/// Whether this process should get requests.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "It should.", body = Readiness),
        (status = 503, description = "It should not.", body = Readiness),
    ),
)]
pub async fn handler(State(api): State<Api>) -> (StatusCode, Json<Readiness>) {
    let database = probe("database", api.app.store.ping());
    let files = probe("files", api.app.files.check());
    let (database, files) = tokio::join!(database, files);
    let (code, readiness) = verdict(api.shutdown.is_stopping(), database, files);
    (code, Json(readiness))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_process_that_goes_on_is_ready() {
        for (stopping, database, files, status, code) in [
            (false, true, true, "ready", 200),
            (true, true, true, "stopping", 503),
            (false, false, true, "unavailable", 503),
            (false, true, false, "unavailable", 503),
        ] {
            let (got, readiness) = verdict(stopping, database, files);
            assert_eq!((readiness.status, got.as_u16()), (status, code));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_has_failed() {
        assert!(!probe("x", std::future::pending::<Result<(), String>>()).await);
        assert!(!probe("x", std::future::ready(Err("down"))).await);
        assert!(probe("x", std::future::ready(Ok::<_, String>(()))).await);
    }
}
