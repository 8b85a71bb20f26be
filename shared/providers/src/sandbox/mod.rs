//! The sandbox: a provider without a network, a key or a bill, for trying things out and for tests.
//!
//! Deterministic: the same request gives the same bytes. It keeps nothing in memory: what a poll needs is in the id that the
//! submit gave out, so that a job goes on after the process died.

mod chat;
mod directives;
mod jobs;
mod mesh;
mod music;
mod video;

use std::sync::Arc;
use std::time::Duration;

use aig_domain::Clock;
use aig_domain::catalog::{DurationRange, Modality, Model, TokenLimits};
use aig_domain::price::{Pico, Price, PriceList, Unit};

/// The provider's name.
pub const NAME: &str = "sandbox";

/// The sandbox.
pub struct Sandbox {
    clock: Arc<dyn Clock>,
}

impl Sandbox {
    /// A sandbox that lives by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }
}

/// A cent, in pico-dollars.
const CENT: i64 = 10_000_000_000;
/// A cent per million tokens, in pico-dollars per token.
const CENT_PER_MILLION: i64 = CENT / 1_000_000;

/// Its models, at list price.
pub fn models() -> Vec<Model> {
    let model = |name: &str, modality, prices: &[(Unit, i64)], duration| {
        let list = prices.iter().fold(PriceList::default(), |list, (unit, pico)| list.with(*unit, Pico(*pico)));
        Model {
            id: format!("{NAME}/{name}"),
            provider: NAME.into(),
            modality: Some(modality),
            price: Some(Price { list, margin_bp: 0 }),
            limits: TokenLimits::default(),
            duration,
            deadline: None,
        }
    };
    let range = |min, max, default| Some(DurationRange { min, max, default });
    let tokens = [(Unit::Input, 100 * CENT_PER_MILLION), (Unit::Output, 400 * CENT_PER_MILLION)];
    vec![
        model("chat", Modality::Text, &tokens, None),
        model("video", Modality::Video, &[(Unit::VideoSecond, 5 * CENT)], range(0.5, 60.0, 4.0)),
        model("music", Modality::Music, &[(Unit::MusicSecond, CENT)], range(1.0, 300.0, 8.0)),
        model("3d", Modality::ThreeD, &[(Unit::Mesh, 10 * CENT)], None),
    ]
}

/// How long a call that is told to time out waits before it gives up by itself.
const LONGEST_SILENCE: Duration = Duration::from_hours(1);

/// A number that is the same for the same text: what makes each prompt's result its own.
fn seed(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
