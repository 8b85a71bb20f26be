//! Which model a request means.

use aig_domain::catalog::{Modality, Model};
use aig_domain::{Error, ErrorKind};
use aig_providers::Registry;

/// The models of requests that name none.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Of chat completions.
    pub chat: String,
    /// Of videos.
    pub video: String,
    /// Of music.
    pub music: String,
    /// Of meshes.
    pub three_d: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            chat: "sandbox/chat".into(),
            video: "sandbox/video".into(),
            music: "sandbox/music".into(),
            three_d: "sandbox/3d".into(),
        }
    }
}

impl Defaults {
    fn of(&self, modality: Modality) -> &str {
        match modality {
            Modality::Text => &self.chat,
            Modality::Video => &self.video,
            Modality::Music => &self.music,
            Modality::ThreeD => &self.three_d,
        }
    }
}

/// The model that a request of `modality` means: the one it `asked` for; the default for none, `auto` or `auto/…`.
///
/// # Errors
/// A 404 that helps to find the right id, or a 400 when the model does something else.
pub fn resolve(
    registry: &Registry,
    defaults: &Defaults,
    modality: Modality,
    asked: Option<&str>,
) -> Result<Model, Error> {
    let asked = asked.filter(|id| !id.is_empty() && *id != "auto" && !id.starts_with("auto/"));
    let id = asked.unwrap_or_else(|| defaults.of(modality));
    let Some(model) = registry.find(id) else { return Err(unknown(registry, id)) };
    let usable = match modality {
        Modality::Text => registry.chat(&model.provider).is_some(),
        _ => registry.jobs(&model.provider).is_some(),
    };
    if usable && model.serves(modality) {
        return Ok(model);
    }
    let (is, route) = match model.modality {
        Some(Modality::Text) => ("a chat model", "POST /v1/chat/completions"),
        Some(Modality::Video) => ("a video model", "POST /v1/videos/generations"),
        Some(Modality::Music) => ("a music model", "POST /v1/audio/music"),
        Some(Modality::ThreeD) => ("a 3D model", "POST /v1/3d/generations"),
        None => ("a model for jobs", "a job route such as POST /v1/videos/generations"),
    };
    Err(Error::invalid("model", format!("`{}` is {is}. Use {route}.", model.id)))
}

fn unknown(registry: &Registry, id: &str) -> Error {
    let id: String = id.chars().take(100).collect();
    let full = registry.models().into_iter().find(|model| model.upstream_name() == id);
    let hint = match full {
        Some(model) => format!("Did you mean `{}`? A model's id begins with its provider.", model.id),
        None => "GET /v1/models lists the models there are.".to_owned(),
    };
    let mut error = Error::new(ErrorKind::ModelNotFound, format!("There is no model `{id}`. {hint}"));
    error.param = Some("model".into());
    error
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use aig_domain::clock::SystemClock;
    use aig_fetch::{TrustedClient, TrustedConfig, UntrustedFetcher, UrlPolicy};

    use super::*;

    fn ask(modality: Modality, asked: Option<&str>) -> Result<String, Error> {
        let client = TrustedClient::new(&TrustedConfig::default()).unwrap();
        let fetcher = UntrustedFetcher::new(UrlPolicy::default()).unwrap();
        let registry = Registry::new(Vec::new(), &client, &fetcher, Arc::new(SystemClock), &HashMap::new()).unwrap();
        resolve(&registry, &Defaults::default(), modality, asked).map(|model| model.id)
    }

    #[test]
    fn none_and_auto_mean_the_default() {
        for asked in [None, Some(""), Some("auto"), Some("auto/video")] {
            assert_eq!(ask(Modality::Video, asked).unwrap(), "sandbox/video");
        }
        assert_eq!(ask(Modality::Text, None).unwrap(), "sandbox/chat");
    }

    #[test]
    fn errors_name_the_right_model_or_route() {
        let short = ask(Modality::Video, Some("video")).unwrap_err();
        assert_eq!(short.kind, ErrorKind::ModelNotFound);
        assert!(short.message.contains("sandbox/video"), "{short}");
        assert_eq!(ask(Modality::Text, Some("no/such")).unwrap_err().kind, ErrorKind::ModelNotFound);
        let wrong = ask(Modality::Text, Some("sandbox/video")).unwrap_err();
        assert_eq!(wrong.kind, ErrorKind::InvalidRequest);
        assert!(wrong.message.contains("/v1/videos/generations"), "{wrong}");
    }
}
