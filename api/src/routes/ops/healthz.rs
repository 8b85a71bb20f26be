//! `GET /healthz`: the process runs and answers. It asks nothing else, so that a database that is down does not get the
//! process restarted.

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String)),
)]
pub async fn handler() -> &'static str {
    "ok\n"
}
