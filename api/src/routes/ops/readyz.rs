//! `GET /readyz`: whether this process should get requests. Anybody may ask: [`Readiness`] tells no more than which parts work.

use aig_platform::readiness::Readiness;
use axum::Json;
use axum::extract::State;
use http::StatusCode;

use crate::state::Api;

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
    let readiness = Readiness::of(&api.app, &api.shutdown).await;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}
