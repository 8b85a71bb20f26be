//! `GET /v1/webhook-secret`: the secret that signs the webhooks of the caller's account.

use aig_domain::Error;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

/// The secret.
#[derive(Serialize, ToSchema)]
pub struct WebhookSecret {
    /// `whsec_…`
    pub secret: String,
}

/// Show the webhook secret.
#[utoipa::path(
    get,
    path = "/v1/webhook-secret",
    responses((status = 200, description = "The secret.", body = WebhookSecret)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller) -> Result<Json<WebhookSecret>, ApiError> {
    let sealed = api.app.store.webhook_secrets(&caller.account_id).await?.current;
    let secret = api.app.ring.open(&caller.account_id, &sealed).map_err(|error| {
        tracing::error!(%error, account = caller.account_id, "a stored webhook secret does not open");
        Error::internal()
    })?;
    Ok(Json(WebhookSecret { secret }))
}
