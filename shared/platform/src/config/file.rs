//! `aigateway.toml`: its shape, and errors that name the line.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aig_domain::Secret;
use aig_providers::{Models, ProviderConfig, ProviderKind, Quirk};
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::ConfigError;
use super::prices::{Decimal, PricesSection};
use super::sections::{Chat, Server, Tasks, Tiers, Worker};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<String>,
    pub(super) public_url: Option<String>,
    pub(super) media_url: Option<String>,
    pub(super) database_url: Option<String>,
    pub(super) broker_url: Option<String>,
    pub(super) cache_url: Option<String>,
    pub(super) files_url: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) health_listen: Option<String>,
    pub(super) private_targets: Option<String>,
    pub(super) log: Option<String>,
    pub(super) providers: BTreeMap<String, Provider>,
    pub(super) defaults: Defaults,
    pub(super) models: BTreeMap<String, Model>,
    pub(super) prices: PricesSection,
    pub(super) server: Server,
    pub(super) tiers: Tiers,
    pub(super) chat: Chat,
    pub(super) worker: Worker,
    pub(super) tasks: Tasks,
}

/// `[providers.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    kind: ProviderKind,
    base_url: Spanned<String>,
    api_key_env: Option<Spanned<String>>,
    models: Spanned<ModelNames>,
    #[serde(default)]
    quirks: Vec<Quirk>,
    #[serde(default)]
    idempotent_submit: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ModelNames {
    Star(String),
    Listed(Vec<String>),
}

/// `[defaults]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Defaults {
    pub(super) chat: Option<String>,
    pub(super) video: Option<String>,
    pub(super) music: Option<String>,
    #[serde(rename = "3d")]
    pub(super) three_d: Option<String>,
}

/// `[models."NAME/m"]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Model {
    deadline_seconds: Option<Spanned<f64>>,
    pub(super) max_input_tokens: Option<u64>,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) input_cents_per_million: Option<Spanned<Decimal>>,
    pub(super) output_cents_per_million: Option<Spanned<Decimal>>,
    pub(super) cached_input_cents_per_million: Option<Spanned<Decimal>>,
    pub(super) cents_per_image: Option<Spanned<Decimal>>,
    pub(super) cents_per_video_second: Option<Spanned<Decimal>>,
    pub(super) cents_per_music_second: Option<Spanned<Decimal>>,
    pub(super) cents_per_mesh: Option<Spanned<Decimal>>,
    pub(super) cents_per_request: Option<Spanned<Decimal>>,
}

/// A file that was read, for errors that point into it.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Reads the file.
    pub(super) fn parse(&self) -> Result<File, ConfigError> {
        toml::from_str(self.text)
            .map_err(|error| self.error(error.span().map_or(0, |span| span.start), error.message()))
    }

    pub(super) fn error(&self, offset: usize, message: &str) -> ConfigError {
        let line = self.text.get(..offset).unwrap_or("").matches('\n').count() + 1;
        ConfigError(format!("{}:{line}: {message}", self.path.display()))
    }

    /// The providers, their keys read from the environment.
    pub(super) fn providers(
        &self,
        sections: BTreeMap<String, Provider>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<ProviderConfig>, ConfigError> {
        sections.into_iter().map(|(name, section)| self.provider(name, section, env)).collect()
    }

    fn provider(
        &self,
        name: String,
        section: Provider,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ProviderConfig, ConfigError> {
        let url = &section.base_url;
        let base_url = Url::parse(url.get_ref())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| self.error(url.span().start, "base_url must be an http or https URL"))?;
        let api_key = match &section.api_key_env {
            None => None,
            Some(variable) => {
                let name = variable.get_ref();
                let missing =
                    || self.error(variable.span().start, &format!("the environment variable {name} is not set"));
                Some(Secret::new(env(name).filter(|key| !key.is_empty()).ok_or_else(missing)?))
            }
        };
        let models = match section.models.get_ref() {
            ModelNames::Listed(names) => Models::Listed(names.clone()),
            ModelNames::Star(star) if star == "*" => Models::Any,
            ModelNames::Star(_) => {
                return Err(self.error(section.models.span().start, "models must be a list of names, or \"*\""));
            }
        };
        let (kind, quirks, idempotent_submit) = (section.kind, section.quirks, section.idempotent_submit);
        Ok(ProviderConfig { name, kind, base_url, api_key, models, quirks, idempotent_submit })
    }

    /// The deadline of a model, if it has one.
    pub(super) fn deadline(&self, model: &Model) -> Result<Option<Duration>, ConfigError> {
        let Some(seconds) = &model.deadline_seconds else { return Ok(None) };
        if (0.1..=86_400.0).contains(seconds.get_ref()) {
            Ok(Some(Duration::from_secs_f64(*seconds.get_ref())))
        } else {
            Err(self.error(seconds.span().start, "deadline_seconds must be from 0.1 to 86400"))
        }
    }
}
