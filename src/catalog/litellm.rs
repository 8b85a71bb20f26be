//! LiteLLM's list of prices: a JSON object of models, with prices in USD per token, image or second.
//!
//! Prices are taken from the text of the file, so that no float stands between; the digits that somebody else's float left
//! there (`8.000000000000001e-07`) are rounded to the nearest pico-dollar. What this gateway has no unit for is not read: prices
//! of long contexts, of cache writes, of batches and priorities, and those that depend on a resolution.

use std::collections::{BTreeMap, HashMap};

use aig_domain::catalog::TokenLimits;
use aig_domain::price::{Catalog, CatalogEntry, Pico, PriceList, Unit, decimal};
use serde::Deserialize;
use serde_json::value::RawValue;

/// From USD to pico-USD.
const PLACES: u32 = 12;
/// The entry that explains the others.
const SPECIMEN: &str = "sample_spec";

/// What a file holds.
#[derive(Debug)]
pub(super) struct Read {
    /// The models with a price.
    pub(super) catalog: Catalog,
    /// How many have none that this gateway could use.
    pub(super) unpriced: usize,
    /// Models that cannot be read, each with the reason.
    pub(super) unreadable: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    mode: Option<&'a RawValue>,
    #[serde(borrow)]
    input_cost_per_token: Option<&'a RawValue>,
    #[serde(borrow)]
    output_cost_per_token: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_read_input_token_cost: Option<&'a RawValue>,
    #[serde(borrow)]
    input_cost_per_request: Option<&'a RawValue>,
    #[serde(borrow)]
    input_cost_per_image: Option<&'a RawValue>,
    #[serde(borrow)]
    output_cost_per_image: Option<&'a RawValue>,
    #[serde(borrow)]
    output_cost_per_second: Option<&'a RawValue>,
    #[serde(borrow)]
    output_cost_per_video_per_second: Option<&'a RawValue>,
    #[serde(borrow)]
    max_input_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
}

/// Reads the file.
///
/// # Errors
/// When it is not a JSON object.
pub(super) fn read(text: &str) -> serde_json::Result<Read> {
    // Sorted, so that what is said about it is the same each time.
    let models: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
    let mut read = Read { catalog: Catalog(HashMap::new()), unpriced: 0, unreadable: Vec::new() };
    for (name, raw) in models.into_iter().filter(|(name, _)| name != SPECIMEN) {
        let entry = serde_json::from_str::<Entry<'_>>(raw.get()).map_err(|_| "it is no object".to_owned());
        match entry.and_then(|entry| entry.list().map(|list| (list, entry.limits()))) {
            Ok((list, _)) if list.is_empty() => read.unpriced += 1,
            Ok((list, limits)) => drop(read.catalog.0.insert(name, CatalogEntry { list, limits })),
            Err(reason) => read.unreadable.push((name, reason)),
        }
    }
    Ok(read)
}

impl Entry<'_> {
    fn list(&self) -> Result<PriceList, String> {
        let mode = self.mode.map_or("", plain);
        // Elsewhere these are prices of what is read, or of sound.
        let makes_images = matches!(mode, "image_generation" | "image_edit");
        let makes_videos = mode == "video_generation";
        let prices = [
            (Unit::Input, "input_cost_per_token", self.input_cost_per_token),
            (Unit::Output, "output_cost_per_token", self.output_cost_per_token),
            (Unit::CachedInput, "cache_read_input_token_cost", self.cache_read_input_token_cost),
            (Unit::Request, "input_cost_per_request", self.input_cost_per_request),
            (Unit::Image, "input_cost_per_image", self.input_cost_per_image.filter(|_| makes_images)),
            (Unit::Image, "output_cost_per_image", self.output_cost_per_image),
            (Unit::VideoSecond, "output_cost_per_second", self.output_cost_per_second.filter(|_| makes_videos)),
            (Unit::VideoSecond, "output_cost_per_video_per_second", self.output_cost_per_video_per_second),
        ];
        let mut list = PriceList::default();
        // Of two prices for a unit, the later one is the more exact one.
        for (unit, name, raw) in prices {
            let Some(raw) = raw else { continue };
            let price = decimal::nearest(plain(raw), PLACES).map_err(|error| format!("{name} {error}"))?;
            list = list.with(unit, Pico(price));
        }
        Ok(list)
    }

    fn limits(&self) -> TokenLimits {
        // A limit that is no number is one that is not known.
        let limit = |raw: Option<&RawValue>| decimal::exact(plain(raw?), 0).ok()?.try_into().ok();
        TokenLimits { max_input_tokens: limit(self.max_input_tokens), max_output_tokens: limit(self.max_output_tokens) }
    }
}

/// A number or a word, without the quotes that some numbers have there.
fn plain(raw: &RawValue) -> &str {
    raw.get().trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "sample_spec": {"input_cost_per_token": 1, "max_input_tokens": "what it is"},
        "gpt-x": {"mode": "chat", "litellm_provider": "openai", "input_cost_per_token": 1.5e-07, "max_input_tokens": 128000.0,
            "output_cost_per_token": 0.0000006, "cache_read_input_token_cost": 7.500000000000001E-8,
            "max_output_tokens": "16384", "input_cost_per_image": 0.5, "supports_vision": true},
        "video": {"mode": "video_generation", "output_cost_per_second": 0.4, "output_cost_per_second_4k": 0.6},
        "sora": {"mode": "video_generation", "output_cost_per_video_per_second": 0.1},
        "speech": {"mode": "audio_speech", "output_cost_per_second": 0.4},
        "image": {"mode": "image_generation", "input_cost_per_image": 0.02},
        "image2": {"mode": "image_generation", "input_cost_per_image": 0.0, "output_cost_per_image": 0.04},
        "free": {"mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0.0, "max_input_tokens": null},
        "none": {"mode": "chat", "input_cost_per_token": null},
        "bad": {"input_cost_per_token": -1e-6},
        "worse": {"input_cost_per_token": {"a": 1}},
        "worst": 5
    }"#;

    #[test]
    fn every_entry_is_read_from_its_digits_or_told() {
        let read = read(FILE).unwrap();
        let pico = |name: &str| {
            let list = read.catalog.0[name].list;
            list.iter().map(|(unit, pico)| (unit.as_str(), pico.0)).collect::<Vec<_>>()
        };
        assert_eq!(pico("gpt-x"), [("input", 150_000), ("output", 600_000), ("cached_input", 75_000)]);
        let limits = TokenLimits { max_input_tokens: Some(128_000), max_output_tokens: Some(16_384) };
        assert_eq!(read.catalog.0["gpt-x"].limits, limits);
        assert_eq!(pico("video"), [("video_second", 400_000_000_000)]);
        assert_eq!(pico("sora"), [("video_second", 100_000_000_000)]);
        assert_eq!(pico("image"), [("image", 20_000_000_000)]);
        assert_eq!(pico("image2"), [("image", 40_000_000_000)]);
        assert_eq!(pico("free"), [("input", 0), ("output", 0)]);
        assert_eq!((read.catalog.0.len(), read.unpriced), (6, 2));
        let names: Vec<&str> = read.unreadable.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["bad", "worse", "worst"]);
        assert_eq!(read.unreadable[0].1, "input_cost_per_token is below zero");
    }

    #[test]
    fn another_file_is_refused() {
        for text in ["", "[]", "{", "1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
