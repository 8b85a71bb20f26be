//! Prices and the margin, as the file writes them: decimals that are taken digit by digit and never become a float.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aig_domain::catalog::TokenLimits;
use aig_domain::price::decimal::{self, DecimalError};
use aig_domain::price::{CatalogEntry, DEFAULT_MARGIN_BP, Pico, PriceList, Unit};
use aig_providers::PriceConfig;
use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use super::file::{Model, Source};

/// The highest price, in cents per million tokens or cents per unit: 10,000 USD.
const MOST_CENTS: i64 = 1_000_000;
/// How often the imported prices are read, unless the file says otherwise: an import is taken up within a minute.
const RELOAD: Duration = Duration::from_secs(30);
/// The highest margin, in basis points: 1000 %.
const MOST_MARGIN: u32 = 100_000;

/// A decimal in the file: `15`, `0.375` or `"0.375"`. Of a float only the place is kept: its digits are read from there.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Decimal {
    Text(String),
    Integer(i64),
    Float(#[expect(dead_code, reason = "its digits are read from the file")] f64),
}

/// `[prices]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PricesSection {
    pub(super) margin_percent: Option<Spanned<Decimal>>,
    pub(super) reload_interval_ms: Option<Spanned<u64>>,
}

impl Source<'_> {
    /// The margin, and the prices and limits by model.
    pub(super) fn prices(
        &self,
        section: &PricesSection,
        models: &BTreeMap<String, Model>,
    ) -> Result<PriceConfig, ConfigError> {
        let mut prices = PriceConfig { margin_bp: self.margin(section)?, models: HashMap::new() };
        for (id, model) in models {
            let limits =
                TokenLimits { max_input_tokens: model.max_input_tokens, max_output_tokens: model.max_output_tokens };
            let entry = CatalogEntry { list: self.list(model)?, limits };
            if entry != CatalogEntry::default() {
                prices.models.insert(id.clone(), entry);
            }
        }
        Ok(prices)
    }

    /// How often the imported prices are read.
    pub(super) fn price_reload(&self, section: &PricesSection) -> Result<Duration, ConfigError> {
        match &section.reload_interval_ms {
            None => Ok(RELOAD),
            Some(millis) if *millis.get_ref() >= 50 => Ok(Duration::from_millis(*millis.get_ref())),
            Some(millis) => Err(self.error(millis.span().start, "reload_interval_ms must be at least 50")),
        }
    }

    fn margin(&self, section: &PricesSection) -> Result<u32, ConfigError> {
        let Some(value) = &section.margin_percent else { return Ok(DEFAULT_MARGIN_BP) };
        let margin = decimal::exact(&self.digits(value), 2).map(u32::try_from);
        match margin {
            Ok(Ok(margin)) if margin <= MOST_MARGIN => Ok(margin),
            Err(error @ (DecimalError::NotANumber | DecimalError::TooFine)) => {
                Err(self.error(value.span().start, &format!("margin_percent {error}; it takes two, such as 2.5")))
            }
            _ => Err(self.error(value.span().start, "margin_percent must be from 0 to 1000")),
        }
    }

    fn list(&self, model: &Model) -> Result<PriceList, ConfigError> {
        let prices = [
            (Unit::Input, "input_cents_per_million", &model.input_cents_per_million),
            (Unit::Output, "output_cents_per_million", &model.output_cents_per_million),
            (Unit::CachedInput, "cached_input_cents_per_million", &model.cached_input_cents_per_million),
            (Unit::Image, "cents_per_image", &model.cents_per_image),
            (Unit::VideoSecond, "cents_per_video_second", &model.cents_per_video_second),
            (Unit::MusicSecond, "cents_per_music_second", &model.cents_per_music_second),
            (Unit::Mesh, "cents_per_mesh", &model.cents_per_mesh),
            (Unit::Request, "cents_per_request", &model.cents_per_request),
        ];
        let mut list = PriceList::default();
        for (unit, name, value) in prices {
            let Some(value) = value else { continue };
            let wrong = |words: &str| self.error(value.span().start, &format!("{name} {words}"));
            let places = unit.cents_places();
            let pico = decimal::exact(&self.digits(value), places).map_err(|error| match error {
                DecimalError::TooFine => wrong(&format!("{error}: {places}")),
                _ => wrong(&error.to_string()),
            })?;
            if pico > MOST_CENTS * 10i64.pow(places) {
                return Err(wrong(&format!("is more than {MOST_CENTS} cents; prices are in US cents")));
            }
            list = list.with(unit, Pico(pico));
        }
        Ok(list)
    }

    /// The digits that the file has there.
    fn digits(&self, value: &Spanned<Decimal>) -> String {
        match value.get_ref() {
            Decimal::Text(text) => text.clone(),
            Decimal::Integer(number) => number.to_string(),
            Decimal::Float(_) => self.text.get(value.span()).unwrap_or_default().replace('_', ""),
        }
    }
}
