//! Which models a caller may use. Every route that works with a model gets it from [`Caller::model`], and so none can
//! forget to ask; that none does is tested over the whole table of routes in `tests/it/tenants.rs`.

use aig_domain::catalog::{Modality, Model};
use aig_domain::{Error, ErrorKind};

use super::auth::Caller;
use crate::state::ApiState;

impl Caller {
    /// The model that a request of `modality` means, if the caller may use it.
    ///
    /// # Errors
    /// What [`aig_inference::resolve`] says, or a 403 that names the model.
    pub fn model(&self, api: &ApiState, modality: Modality, asked: Option<&str>) -> Result<Model, Error> {
        let model = aig_inference::resolve(&api.app.providers, &api.app.defaults, modality, asked)?;
        if self.key.allows(&model.id) {
            return Ok(model);
        }
        let message = format!(
            "This key may not use the model `{}`: `allowed_models` of the key or of its sub-account leaves it out. Nothing was \
             done or charged. GET /v1/models lists those it may use.",
            model.id
        );
        Err(Error { param: Some("model".into()), ..Error::new(ErrorKind::ScopeExceeded, message) })
    }
}
