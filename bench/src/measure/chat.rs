//! Chat calls with a whole answer: what a call costs in each proxy.

use super::proxies::{Ask, Column, side_by_side};
use crate::Settings;
use crate::rounds::Sample;
use crate::table::Table;

/// About 600 bytes of answer.
const ASK: Ask = Ask { words: 64, stream: false };

/// Measures it.
pub async fn run(settings: &Settings) -> anyhow::Result<Table> {
    let rates: [Column; 1] = [("calls/s", Sample::calls)];
    side_by_side(settings, "chat, whole answers", &ASK, &rates, ("CPU µs/call", Sample::micros_per_call)).await
}
