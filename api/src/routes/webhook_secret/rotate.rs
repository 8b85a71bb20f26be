//! `POST /v1/webhook-secret/rotate`: replace the secret that signs the webhooks of the caller's account. The old one ends at
//! once, or signs beside the new one for `grace_seconds`. What can go wrong: 400 naming `grace_seconds`.

use std::time::Duration;

use aig_domain::signing::new_webhook_secret;
use axum::Json;
use axum::extract::State;

use super::get::WebhookSecret;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

const LONGEST_GRACE: u64 = 24 * 3600;

/// Replace the webhook secret.
///
/// The old one ends at once unless `grace_seconds` is given.
#[utoipa::path(
    post,
    path = "/v1/webhook-secret/rotate",
    params(("grace_seconds" = Option<u64>, Query, description = "How long the old one signs too, 0 to 86400; 0 when missing.")),
    responses((status = 200, description = "The new secret.", body = WebhookSecret)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<WebhookSecret>, ApiError> {
    let grace = query.number("grace_seconds", 0..=LONGEST_GRACE)?.filter(|seconds| *seconds > 0);
    let until = grace.map(|seconds| api.app.clock.now().plus(Duration::from_secs(seconds)));
    let secret = new_webhook_secret();
    let sealed = api.app.ring.seal(&caller.account_id, secret.expose());
    api.app.store.rotate_webhook_secret(&caller.account_id, &sealed, until).await?;
    Ok(Json(WebhookSecret { secret: secret.expose().to_owned() }))
}
