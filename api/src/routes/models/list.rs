//! `GET /v1/models`: the models that the caller's requests may name, sorted by id. What can go wrong: 400 naming the parameter.

use aig_domain::Error;
use aig_domain::catalog::{Modality, Model};
use aig_domain::price::{PriceList, Unit};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::query::Query;
use crate::state::Api;

/// All models that fit.
#[derive(Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The models.
    pub data: Vec<ModelRecord>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelRecord {
    /// `provider/name`.
    pub id: String,
    /// Always `model`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// Always 0: when a provider made its model is not known here.
    pub created: i64,
    /// The provider.
    pub owned_by: String,
    /// What it does; null when whatever route names it decides.
    pub modality: Option<Modality>,
    /// The list price, when known.
    pub pricing: Option<Pricing>,
    /// Allowed clip lengths, when known.
    pub duration: Option<DurationSeconds>,
}

/// A list price in US cents, without the gateway's margin. The members that do not fit the unit are missing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Pricing {
    /// `token`, `second`, `mesh`, `image` or `request`.
    #[schema(value_type = String)]
    pub unit: &'static str,
    /// Per million input tokens.
    #[schema(value_type = Option<f64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_cents_per_million: Option<serde_json::Number>,
    /// Per million output tokens.
    #[schema(value_type = Option<f64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_cents_per_million: Option<serde_json::Number>,
    /// Per million input tokens that the provider has in its cache.
    #[schema(value_type = Option<f64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input_cents_per_million: Option<serde_json::Number>,
    /// Per second, mesh, image or request.
    #[schema(value_type = Option<f64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cents: Option<serde_json::Number>,
}

/// Clip lengths, in seconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct DurationSeconds {
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
    /// When the request does not say.
    pub default: f64,
}

impl Pricing {
    /// What is shown of `list`: of all the units that it has, the one that says most about the model.
    fn of(list: &PriceList) -> Option<Self> {
        let cents = |unit: Unit| list.get(unit).map(|price| unit.cents_json(price));
        let none = Self {
            unit: "token",
            input_cents_per_million: None,
            output_cents_per_million: None,
            cached_input_cents_per_million: None,
            cents: None,
        };
        if list.get(Unit::Input).or(list.get(Unit::Output)).is_some() {
            return Some(Self {
                input_cents_per_million: cents(Unit::Input),
                output_cents_per_million: cents(Unit::Output),
                cached_input_cents_per_million: cents(Unit::CachedInput),
                ..none
            });
        }
        let units = [
            (Unit::VideoSecond, "second"),
            (Unit::MusicSecond, "second"),
            (Unit::Mesh, "mesh"),
            (Unit::Image, "image"),
            (Unit::Request, "request"),
        ];
        let (cents, unit) = units.into_iter().find_map(|(unit, word)| Some((cents(unit)?, word)))?;
        Some(Self { unit, cents: Some(cents), ..none })
    }
}

impl From<Model> for ModelRecord {
    fn from(model: Model) -> Self {
        Self {
            id: model.id,
            object: "model",
            created: 0,
            owned_by: model.provider,
            modality: model.modality,
            pricing: model.price.and_then(|price| Pricing::of(&price.list)),
            duration: model.duration.map(|range| DurationSeconds {
                min: range.min,
                max: range.max,
                default: range.default,
            }),
        }
    }
}

/// What a list may be narrowed to.
#[derive(Debug, Default)]
struct Filter<'a> {
    modality: Option<Wanted>,
    provider: Option<&'a str>,
    words: Option<String>,
}

/// A modality of the contract; some have no models here yet.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Known(Modality),
    None,
}

/// Modalities of the contract that no model here has.
const WITHOUT_MODELS: [&str; 6] = ["image", "embedding", "audio-stt", "audio-tts", "moderation", "rerank"];

impl<'a> Filter<'a> {
    fn read(query: &'a Query) -> Result<Self, Error> {
        let modality = match query.text("modality")?.filter(|word| !word.is_empty()) {
            None => None,
            Some(word) if WITHOUT_MODELS.contains(&word) => Some(Wanted::None),
            Some(word) => Some(Wanted::Known(Modality::parse(word).ok_or_else(unknown_modality)?)),
        };
        let provider = query.text("provider")?.filter(|name| !name.is_empty());
        Ok(Self { modality, provider, words: query.text("q")?.map(str::to_lowercase) })
    }

    fn fits(&self, model: &Model) -> bool {
        self.modality.is_none_or(|wanted| matches!(wanted, Wanted::Known(modality) if model.serves(modality)))
            && self.provider.is_none_or(|provider| model.provider == provider)
            && self.words.as_ref().is_none_or(|words| model.id.to_lowercase().contains(words))
    }
}

fn unknown_modality() -> Error {
    let known = ["text", "video", "music", "3d"].into_iter().chain(WITHOUT_MODELS);
    let words: Vec<String> = known.map(|word| format!("`{word}`")).collect();
    Error::invalid("modality", format!("`modality` must be one of {}.", words.join(", ")))
}

/// List models.
#[utoipa::path(
    get,
    path = "/v1/models",
    params(
        ("modality" = Option<String>, Query, description = "`text`, `video`, `music` or `3d`."),
        ("provider" = Option<String>, Query, description = "Only this provider's."),
        ("q" = Option<String>, Query, description = "Only those whose id holds this text."),
    ),
    responses((status = 200, description = "The models.", body = ModelList)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<ModelList>, ApiError> {
    let filter = Filter::read(&query)?;
    let models =
        api.app.providers.models().into_iter().filter(|model| filter.fits(model) && caller.key.allows(&model.id));
    Ok(Json(ModelList { object: "list", data: models.map(ModelRecord::from).collect() }))
}

#[cfg(test)]
mod tests {
    use aig_domain::catalog::TokenLimits;
    use aig_domain::price::{Pico, Price};

    use super::*;

    fn model(id: &str, modality: Option<Modality>, price: Option<Price>) -> Model {
        let provider = id.split('/').next().unwrap().to_owned();
        let limits = TokenLimits::default();
        Model { id: id.into(), provider, modality, price, limits, duration: None, deadline: None }
    }

    #[test]
    fn filters_narrow_the_list() {
        let (chat, any) = (model("sandbox/Chat", Some(Modality::Text), None), model("peer/x", None, None));
        let fits = |query: &str, model: &Model| Filter::read(&Query::parse(query)).unwrap().fits(model);
        assert!(fits("", &chat) && fits("modality=&provider=&q=", &chat));
        assert!(fits("modality=text&provider=sandbox&q=cHaT", &chat));
        assert!(!fits("modality=video", &chat) && !fits("provider=peer", &chat) && !fits("q=y", &chat));
        assert!(fits("modality=video", &any));
        assert!(!fits("modality=image", &any), "a word of the contract, without models here");
        assert_eq!(Filter::read(&Query::parse("modality=smell")).unwrap_err().param.as_deref(), Some("modality"));
    }

    #[test]
    fn a_record_tells_the_price_in_cents() {
        let list = PriceList::default().with(Unit::Input, Pico(1_000_000)).with(Unit::Output, Pico(4389));
        let price = Price { list, margin_bp: 500 };
        let record =
            serde_json::to_value(ModelRecord::from(model("a/b/c", Some(Modality::ThreeD), Some(price)))).unwrap();
        let pricing = serde_json::json!({
            "unit": "token", "input_cents_per_million": 100, "output_cents_per_million": 0.4389,
        });
        assert_eq!(record["pricing"], pricing);
        assert_eq!((&record["id"], &record["modality"]), (&"a/b/c".into(), &"3d".into()));
        let of = |unit| Pricing::of(&PriceList::default().with(unit, Pico(5_000_000_000)));
        let second = serde_json::json!({"unit": "second", "cents": 0.5});
        assert_eq!(serde_json::to_value(of(Unit::VideoSecond)).unwrap(), second);
        assert_eq!(of(Unit::Request).unwrap().unit, "request");
        assert!(Pricing::of(&PriceList::default()).is_none());
    }
}
