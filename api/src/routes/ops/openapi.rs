//! `GET /openapi.json`: the description of this API.

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use crate::openapi;

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "The OpenAPI document.", content_type = "application/json", body = Object)),
)]
pub async fn handler() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], openapi::json())
}
