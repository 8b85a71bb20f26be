//! The units that work is counted in, and a price for each.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::decimal;

/// What a price is for one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// A token read.
    Input,
    /// A token written.
    Output,
    /// A token read out of the provider's cache.
    CachedInput,
    /// An image made.
    Image,
    /// A second of video.
    VideoSecond,
    /// A second of music.
    MusicSecond,
    /// A 3D mesh.
    Mesh,
    /// A request, whatever it uses.
    Request,
}

impl Unit {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::Input,
        Self::Output,
        Self::CachedInput,
        Self::Image,
        Self::VideoSecond,
        Self::MusicSecond,
        Self::Mesh,
        Self::Request,
    ];

    /// The word in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::CachedInput => "cached_input",
            Self::Image => "image",
            Self::VideoSecond => "video_second",
            Self::MusicSecond => "music_second",
            Self::Mesh => "mesh",
            Self::Request => "request",
        }
    }

    /// The unit of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == word)
    }

    /// Whether it is a token, whose price people say per million.
    pub fn is_token(self) -> bool {
        matches!(self, Self::Input | Self::Output | Self::CachedInput)
    }

    /// How many decimal places lie between a price as people say it and pico-dollars per unit: cents per million for
    /// tokens, cents for everything else.
    pub fn cents_places(self) -> u32 {
        if self.is_token() { 4 } else { 10 }
    }

    /// `price` as people say it, in cents (per million for tokens), with all its digits.
    pub fn cents_text(self, price: Pico) -> String {
        decimal::text(price.0, self.cents_places())
    }

    /// The same for the wire: a whole number where it is one.
    pub fn cents_json(self, price: Pico) -> serde_json::Number {
        decimal::json(i128::from(price.0), self.cents_places())
    }
}

/// A price in pico-USD (10⁻¹² dollar) for one of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pico(pub i64);

/// A price for some of the units. In JSON a map from unit to pico-USD; a unit this program does not know is left out on read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriceList([Option<Pico>; Unit::ALL.len()]);

impl PriceList {
    /// The same list with a price for `unit`.
    #[must_use]
    pub fn with(mut self, unit: Unit, price: Pico) -> Self {
        self.0[unit as usize] = Some(price);
        self
    }

    /// The price for `unit`.
    pub fn get(&self, unit: Unit) -> Option<Pico> {
        self.0[unit as usize]
    }

    /// Whether nothing has a price.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The prices there are.
    pub fn iter(&self) -> impl Iterator<Item = (Unit, Pico)> + '_ {
        Unit::ALL.into_iter().filter_map(|unit| Some((unit, self.get(unit)?)))
    }
}

impl Serialize for PriceList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(unit, price)| (unit.as_str(), price)))
    }
}

impl<'de> Deserialize<'de> for PriceList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Self::default();
        for (word, amount) in BTreeMap::<String, i64>::deserialize(deserializer)? {
            let Some(unit) = Unit::parse(&word) else { continue };
            if amount < 0 {
                return Err(D::Error::custom("a price is below zero"));
            }
            list = list.with(unit, Pico(amount));
        }
        Ok(list)
    }
}
