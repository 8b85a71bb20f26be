//! Streamed chat calls whose events come all at once: what an event costs in each proxy.

use super::proxies::{Ask, Column, side_by_side};
use crate::Settings;
use crate::rounds::Sample;
use crate::table::Table;

/// Four events are around the words.
const ASK: Ask = Ask { words: 64, stream: true };

/// Measures it.
pub async fn run(settings: &Settings) -> anyhow::Result<Table> {
    let what = format!("chat, streams in a burst of {} chunks", ASK.words + 4);
    let rates: [Column; 2] = [("streams/s", Sample::calls), ("chunks/s", Sample::events)];
    side_by_side(settings, &what, &ASK, &rates, ("CPU µs/chunk", Sample::micros_per_event)).await
}
