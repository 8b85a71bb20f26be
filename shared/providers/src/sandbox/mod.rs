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

use aig_domain::catalog::{DurationRange, Modality, Model, Price};
use aig_domain::{Clock, Nano};

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

/// Its models.
pub fn models() -> Vec<Model> {
    let cents = |cents: i64| Nano(Nano::CENT.0 * cents);
    let model = |name: &str, modality, price, duration| Model {
        id: format!("{NAME}/{name}"),
        provider: NAME.into(),
        modality: Some(modality),
        price: Some(price),
        duration,
        deadline: None,
    };
    let range = |min, max, default| Some(DurationRange { min, max, default });
    vec![
        model("chat", Modality::Text, Price::Tokens { input: cents(100), output: cents(400) }, None),
        model("video", Modality::Video, Price::Second(cents(5)), range(0.5, 60.0, 4.0)),
        model("music", Modality::Music, Price::Second(cents(1)), range(1.0, 300.0, 8.0)),
        model("3d", Modality::ThreeD, Price::Mesh(cents(10)), None),
    ]
}

/// How long a call that is told to time out waits before it gives up by itself.
const LONGEST_SILENCE: Duration = Duration::from_hours(1);

/// A number that is the same for the same text: what makes each prompt's result its own.
fn seed(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
