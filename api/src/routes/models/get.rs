//! `GET /v1/models/{id}`: one model. The id holds slashes; raw and as `%2F` they are the same. What can go wrong: 404,
//! also for a model that the caller may not use.

use aig_domain::{Error, ErrorKind};
use axum::Json;
use axum::extract::{Path, State};

use super::list::ModelRecord;
use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

/// Read a model.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    params(("id" = String, Path, description = "`provider/name`, with the slash raw or as `%2F`.")),
    responses((status = 200, description = "The model.", body = ModelRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ModelRecord>, ApiError> {
    match api.app.providers.find(&id).filter(|model| caller.key.allows(&model.id)) {
        Some(model) => Ok(Json(model.into())),
        None => Err(no_such_model().into()),
    }
}

fn no_such_model() -> Error {
    Error::new(
        ErrorKind::ModelNotFound,
        "There is no such model. GET /v1/models lists those there are, as `provider/name`.",
    )
}
