//! `GET /metrics`: what the process counts, in Prometheus' text format; for callers on this machine and the admin key.

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use crate::state::Api;

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "The metrics.", content_type = "text/plain", body = String)),
)]
pub async fn handler(State(api): State<Api>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.app.metrics.render())
}
