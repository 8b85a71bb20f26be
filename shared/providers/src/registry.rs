//! Which providers and models this installation has: the sandbox, and those of the configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aig_domain::catalog::{Modality, Model, TokenLimits};
use aig_domain::price::Catalog;
use aig_domain::{Clock, Secret};
use aig_fetch::{TrustedClient, UntrustedFetcher};
use url::Url;

use crate::aigateway::Aigateway;
use crate::openai::Openai;
use crate::prices::{PriceBook, PriceConfig};
use crate::sandbox::{self, Sandbox};
use crate::{ChatProvider, JobProvider};

/// The longest id of a model.
const MAX_MODEL_ID: usize = 200;

/// One `[providers.NAME]` section of the configuration, its key already read from the environment.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The NAME: the first part of the ids of its models. `sandbox` is taken.
    pub name: String,
    /// Which protocol it speaks.
    pub kind: ProviderKind,
    /// `openai`: with `/v1`; `aigateway`: without.
    pub base_url: Url,
    /// The operator's key.
    pub api_key: Option<Secret>,
    /// Which models it serves.
    pub models: Models,
    /// Where the upstream differs from its protocol.
    pub quirks: Vec<Quirk>,
    /// `aigateway` only: whether the upstream honours `Idempotency-Key`.
    pub idempotent_submit: bool,
}

/// A protocol that this gateway speaks to providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// OpenAI's HTTP API: chat completions.
    Openai,
    /// This gateway's own API: jobs.
    Aigateway,
}

/// The models of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Models {
    /// `"*"`: whatever a request names after `NAME/`.
    Any,
    /// These, by the provider's own names.
    Listed(Vec<String>),
}

/// A known difference of an upstream from the protocol of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quirk {
    /// It calls the limit of an answer `max_completion_tokens`, as OpenAI itself does, which needs no word.
    MaxCompletionTokens,
    /// It refuses `stream_options`: none is sent, and usage is estimated when it sends none.
    NoStreamOptions,
}

/// Why the providers make no sense.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A name that cannot be the first part of a model's id.
    #[error("a provider's name is 1 to 32 letters, digits or dashes, which `{0}` is not")]
    BadName(String),
    /// A name that is taken.
    #[error("the provider name `{0}` is taken")]
    Taken(String),
    /// A model that cannot be named.
    #[error("`{0}` cannot be the id of a model")]
    BadModel(String),
}

/// All providers and models.
pub struct Registry {
    providers: BTreeMap<String, Provider>,
    /// The listed models, sorted by id.
    models: BTreeMap<String, Model>,
    deadlines: HashMap<String, Duration>,
    prices: PriceBook,
}

struct Provider {
    chat: Option<Arc<dyn ChatProvider>>,
    jobs: Option<Arc<dyn JobProvider>>,
    /// What its models do; `None` when only the provider knows.
    modality: Option<Modality>,
    /// Whether it serves models that are not listed.
    any: bool,
}

impl Registry {
    /// The sandbox and the providers of `configs`. `deadlines` are those that the operator set, by model id.
    ///
    /// # Errors
    /// When a name is taken or malformed.
    pub fn new(
        configs: Vec<ProviderConfig>,
        client: &TrustedClient,
        fetcher: &UntrustedFetcher,
        clock: Arc<dyn Clock>,
        deadlines: &HashMap<String, Duration>,
    ) -> Result<Self, RegistryError> {
        let mut registry = Self {
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
            deadlines: deadlines.clone(),
            prices: PriceBook::default(),
        };
        let sandbox = Arc::new(Sandbox::new(clock));
        let provider = Provider { chat: Some(sandbox.clone()), jobs: Some(sandbox), modality: None, any: false };
        registry.providers.insert(sandbox::NAME.into(), provider);
        for model in sandbox::models() {
            registry.list(model)?;
        }
        for config in configs {
            registry.add(config, client, fetcher)?;
        }
        Ok(registry)
    }

    /// The same registry with the prices, limits and the margin of `config`.
    #[must_use]
    pub fn with_prices(self, config: PriceConfig) -> Self {
        Self { prices: PriceBook::new(config), ..self }
    }

    /// Replaces the imported prices, for this process and at once. Calls under way keep the price they began with.
    pub fn set_catalog(&self, catalog: Catalog) {
        self.prices.set_catalog(catalog);
    }

    fn add(
        &mut self,
        config: ProviderConfig,
        client: &TrustedClient,
        fetcher: &UntrustedFetcher,
    ) -> Result<(), RegistryError> {
        let name = config.name.clone();
        let fine = (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fine || name == "auto" {
            return Err(RegistryError::BadName(name));
        }
        if self.providers.contains_key(&name) {
            return Err(RegistryError::Taken(name));
        }
        let (models, kind) = (config.models.clone(), config.kind);
        // What a gateway's model does is known only to that gateway.
        let modality = (kind == ProviderKind::Openai).then_some(Modality::Text);
        let any = models == Models::Any;
        let mut provider = Provider { chat: None, jobs: None, modality, any };
        match kind {
            ProviderKind::Openai => provider.chat = Some(Arc::new(Openai::new(config, client.clone()))),
            ProviderKind::Aigateway => {
                provider.jobs = Some(Arc::new(Aigateway::new(config, client.clone(), fetcher.clone())));
            }
        }
        if let Models::Listed(listed) = models {
            for model in listed {
                self.list(plain(format!("{name}/{model}"), &name, modality))?;
            }
        }
        self.providers.insert(name, provider);
        Ok(())
    }

    fn list(&mut self, model: Model) -> Result<(), RegistryError> {
        if !is_model_id(&model.id) {
            return Err(RegistryError::BadModel(model.id));
        }
        let model = self.with_deadline(model);
        self.models.insert(model.id.clone(), model);
        Ok(())
    }

    fn with_deadline(&self, model: Model) -> Model {
        Model { deadline: self.deadlines.get(&model.id).copied(), ..model }
    }

    /// The listed models, sorted by id, with their prices.
    pub fn models(&self) -> Vec<Model> {
        self.models.values().map(|model| self.prices.priced(model.clone())).collect()
    }

    /// The model `id`, listed or not, with its price and limits (`prices.rs` says whose).
    pub fn find(&self, id: &str) -> Option<Model> {
        if let Some(model) = self.models.get(id) {
            return Some(self.prices.priced(model.clone()));
        }
        let (name, _) = id.split_once('/')?;
        let provider = self.providers.get(name).filter(|provider| provider.any)?;
        is_model_id(id).then(|| self.prices.priced(self.with_deadline(plain(id.to_owned(), name, provider.modality))))
    }

    /// The chat completions of a provider.
    pub fn chat(&self, provider: &str) -> Option<Arc<dyn ChatProvider>> {
        self.providers.get(provider)?.chat.clone()
    }

    /// The jobs of a provider.
    pub fn jobs(&self, provider: &str) -> Option<Arc<dyn JobProvider>> {
        self.providers.get(provider)?.jobs.clone()
    }
}

fn plain(id: String, provider: &str, modality: Option<Modality>) -> Model {
    Model {
        id,
        provider: provider.to_owned(),
        modality,
        price: None,
        limits: TokenLimits::default(),
        duration: None,
        deadline: None,
    }
}

fn is_model_id(id: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'@' | b'+');
    id.len() <= MAX_MODEL_ID && id.bytes().all(plain) && id.split('/').all(|part| !part.is_empty() && part != "..")
}

#[cfg(test)]
mod tests {
    use aig_domain::clock::SystemClock;
    use aig_domain::price::{CatalogEntry, Pico, Price, PriceList, Unit};
    use aig_fetch::UrlPolicy;

    use super::*;

    fn config(name: &str, kind: ProviderKind, models: Models) -> ProviderConfig {
        ProviderConfig {
            name: name.into(),
            kind,
            base_url: "http://127.0.0.1:1/v1".parse().unwrap(),
            api_key: None,
            models,
            quirks: Vec::new(),
            idempotent_submit: false,
        }
    }

    fn registry(configs: Vec<ProviderConfig>) -> Result<Registry, RegistryError> {
        let client = TrustedClient::new(&aig_fetch::TrustedConfig::default()).unwrap();
        let deadlines = HashMap::from([("up/x".to_owned(), Duration::from_secs(1))]);
        let fetcher = UntrustedFetcher::new(UrlPolicy::default()).unwrap();
        Registry::new(configs, &client, &fetcher, Arc::new(SystemClock), &deadlines)
    }

    #[test]
    fn models_are_found_by_their_full_id() {
        let listed = Models::Listed(vec!["org/m".into()]);
        let configs =
            vec![config("one", ProviderKind::Openai, listed), config("up", ProviderKind::Aigateway, Models::Any)];
        let registry = registry(configs).unwrap();
        assert_eq!(registry.find("one/org/m").unwrap().modality, Some(Modality::Text));
        assert_eq!(registry.find("up/x").unwrap().modality, None);
        assert_eq!(registry.find("up/x").unwrap().deadline, Some(Duration::from_secs(1)));
        for unknown in ["one/other", "org/m", "m", "", "up/", "up//x", "up/../x", "up/a b", "two/x", "sandbox/nope"] {
            assert!(registry.find(unknown).is_none(), "{unknown}");
        }
        assert!(registry.chat("one").is_some() && registry.jobs("one").is_none());
        assert!(registry.chat("up").is_none() && registry.jobs("up").is_some());
        assert!(registry.models().is_sorted_by(|a, b| a.id < b.id));
    }

    #[test]
    fn models_come_with_their_prices_listed_or_not() {
        let list = PriceList::default().with(Unit::Request, Pico(7));
        let entry = CatalogEntry { list, limits: TokenLimits::default() };
        let configs = vec![
            config("one", ProviderKind::Openai, Models::Listed(vec!["m".into()])),
            config("up", ProviderKind::Openai, Models::Any),
        ];
        let prices = PriceConfig { margin_bp: 100, models: HashMap::from([("up/m".into(), entry)]) };
        let registry = registry(configs).unwrap().with_prices(prices);
        let price = Some(Price { list, margin_bp: 100 });
        assert_eq!(registry.find("up/m").unwrap().price, price);
        assert_eq!(registry.find("one/m").unwrap().price, None);
        registry.set_catalog(Catalog(HashMap::from([("m".into(), entry)])));
        assert_eq!(registry.find("one/m").unwrap().price, price);
        assert!(registry.models().iter().all(|model| model.price.is_some_and(|price| price.margin_bp == 100)));
    }

    #[test]
    fn names_are_unique_and_plain() {
        for name in ["sandbox", "", "a/b", "a b", "auto"] {
            assert!(registry(vec![config(name, ProviderKind::Openai, Models::Any)]).is_err(), "{name}");
        }
        let twice =
            vec![config("a", ProviderKind::Openai, Models::Any), config("a", ProviderKind::Openai, Models::Any)];
        assert!(registry(twice).is_err());
    }
}
