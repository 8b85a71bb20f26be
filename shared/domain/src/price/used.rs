//! What a request used, unit by unit.

use serde::{Deserialize, Serialize};

use super::Unit;
use crate::budget::Usage;
use crate::catalog::Modality;

/// What was used. In JSON the members that are zero are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Used {
    /// Tokens read, cached ones included.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_tokens: u64,
    /// Tokens written, reasoning included.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_tokens: u64,
    /// Those of the tokens read that came out of the provider's cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cached_tokens: u64,
    /// Images made.
    #[serde(skip_serializing_if = "is_zero")]
    pub images: u64,
    /// Milliseconds of video.
    #[serde(skip_serializing_if = "is_zero")]
    pub video_millis: u64,
    /// Milliseconds of music.
    #[serde(skip_serializing_if = "is_zero")]
    pub music_millis: u64,
    /// Meshes made.
    #[serde(skip_serializing_if = "is_zero")]
    pub meshes: u64,
    /// Requests made: 1 for every call and job, so that a price per request counts.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Used {
    /// What one chat call used.
    pub fn chat(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cached_tokens: usage.cached_tokens,
            requests: 1,
            ..Self::default()
        }
    }

    /// What one job of `modality` uses that makes `millis` of media, or one mesh.
    pub fn job(modality: Modality, millis: u64) -> Self {
        let one = Self { requests: 1, ..Self::default() };
        match modality {
            Modality::Text => one,
            Modality::Video => Self { video_millis: millis, ..one },
            Modality::Music => Self { music_millis: millis, ..one },
            Modality::ThreeD => Self { meshes: 1, ..one },
        }
    }

    /// How much of `unit`, in thousandths. Cached tokens are not counted as input a second time, and never exceed it.
    pub(super) fn thousandths(&self, unit: Unit) -> u128 {
        let cached = self.cached_tokens.min(self.input_tokens);
        let whole = match unit {
            Unit::Input => self.input_tokens - cached,
            Unit::Output => self.output_tokens,
            Unit::CachedInput => cached,
            Unit::Image => self.images,
            Unit::VideoSecond => return self.video_millis.into(),
            Unit::MusicSecond => return self.music_millis.into(),
            Unit::Mesh => self.meshes,
            Unit::Request => self.requests,
        };
        u128::from(whole) * 1000
    }
}
