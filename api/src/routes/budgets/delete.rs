//! `DELETE /v1/budgets/{id}`: end a cap. What was spent stays known. What can go wrong: 403, 404.

use axum::Json;
use axum::extract::{Path, State};

use super::update::no_such_budget;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::routes::sub_accounts::delete::Deleted;
use crate::state::Api;

/// End a budget.
#[utoipa::path(
    delete,
    path = "/v1/budgets/{id}",
    params(("id" = String, Path, description = "`bud_…`")),
    responses((status = 200, description = "It is deleted.", body = Deleted)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    if !api.app.store.delete_budget(&caller.account_id, &id).await? {
        return Err(no_such_budget().into());
    }
    api.account_changed(&caller.account_id).await;
    Ok(Deleted::new("budget", id))
}
