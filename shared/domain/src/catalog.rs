//! Models: what a request may name, and what it costs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::price::Price;

/// What kind of work a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// Chat completions.
    Text,
    /// Video clips, as jobs.
    Video,
    /// Music, as jobs.
    Music,
    /// 3D meshes, as jobs.
    #[serde(rename = "3d")]
    ThreeD,
}

impl Modality {
    /// The word used on the wire, in the database and as the name of the queue.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Video => "video",
            Self::Music => "music",
            Self::ThreeD => "3d",
        }
    }

    /// The modality of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Text, Self::Video, Self::Music, Self::ThreeD].into_iter().find(|m| m.as_str() == word)
    }
}

/// How many tokens a call may take, where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenLimits {
    /// The most that may be read.
    pub max_input_tokens: Option<u64>,
    /// The most that may be written.
    pub max_output_tokens: Option<u64>,
}

impl TokenLimits {
    /// These limits, and `others` where there are none.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            max_input_tokens: self.max_input_tokens.or(others.max_input_tokens),
            max_output_tokens: self.max_output_tokens.or(others.max_output_tokens),
        }
    }
}

/// How long a clip may be, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DurationRange {
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
    /// When the request does not say.
    pub default: f64,
}

/// A model that requests may name.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// `provider/name`; the name may hold slashes.
    pub id: String,
    /// The provider's name in the configuration.
    pub provider: String,
    /// What it does; `None` when whatever route names it decides (a gateway as an upstream).
    pub modality: Option<Modality>,
    /// Its list price and the gateway's margin, when known.
    pub price: Option<Price>,
    /// How many tokens a call may take, when known.
    pub limits: TokenLimits,
    /// Allowed clip lengths, when known.
    pub duration: Option<DurationRange>,
    /// How long a job of this model may take, when the operator set it; else [`crate::job::deadline`].
    pub deadline: Option<Duration>,
}

impl Model {
    /// Whether a route of `modality` may use this model.
    pub fn serves(&self, modality: Modality) -> bool {
        self.modality.is_none_or(|own| own == modality)
    }

    /// The id without the provider: what the provider itself calls the model.
    pub fn upstream_name(&self) -> &str {
        self.id.split_once('/').map_or(self.id.as_str(), |(_, name)| name)
    }
}
