//! The relay of a stream, without I/O or time: bytes in, bytes out.
//!
//! Events pass verbatim. Only two are touched: the one with the usage and `[DONE]`. However the upstream cut its bytes into
//! chunks, the client gets the same bytes (a property test in `relay/tests.rs`).

use std::borrow::Cow;

use aig_domain::budget::Usage;
use aig_domain::json::RawObject;
use aig_domain::{Error, Nano};
use aig_fetch::sse::{Framer, event_data};
use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::bill::{Charged, Tariff};
use crate::chat::estimate;
use crate::errors;

/// The longest event that is held back until it is complete.
const MAX_EVENT: usize = 1024 * 1024;

/// One stream on its way.
pub(crate) struct Relay {
    framer: Framer,
    /// The client asked for usage in OpenAI's form: a chunk with `choices: []`.
    include_usage: bool,
    request_bytes: usize,
    tariff: Tariff,
    /// What the model wrote so far.
    written_bytes: usize,
    usage: Option<WireUsage>,
    /// The upstream's usage chunk, held back until the end.
    usage_event: Option<Bytes>,
    head: Head,
    finished: bool,
    done: bool,
}

/// What every chunk of a stream repeats, for the one that we may have to make.
#[derive(Default)]
struct Head {
    id: Option<String>,
    model: Option<String>,
    created: Option<i64>,
}

/// A chunk, as far as it matters here.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(default)]
    created: Option<serde_json::Number>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

/// The `usage` of an answer, as it is on the wire.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct WireUsage {
    #[serde(deserialize_with = "count")]
    prompt_tokens: u64,
    #[serde(deserialize_with = "count")]
    completion_tokens: u64,
    #[serde(deserialize_with = "count")]
    total_tokens: u64,
    #[serde(skip_serializing)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(skip_serializing)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

/// A count: a number that is not negative; anything else, `null` too, counts nothing.
fn count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
    let rounded = value.as_f64().filter(|number| *number >= 0.0).map(|number| number.ceil() as u64);
    Ok(value.as_u64().or(rounded).unwrap_or(0))
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            prompt_tokens_details: None,
            completion_tokens_details: None,
        }
    }
}

impl WireUsage {
    /// What the model thought, where a provider counts that in the total alone and not as written.
    fn apart(&self) -> u64 {
        let thought = self.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0);
        let parts = [self.prompt_tokens, self.completion_tokens, thought];
        let sum = parts.into_iter().try_fold(0_u64, u64::checked_add);
        if sum == Some(self.total_tokens) { thought } else { 0 }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.prompt_tokens,
            output_tokens: self.completion_tokens.saturating_add(self.apart()),
            cached_tokens: self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
            estimated: false,
        }
    }
}

impl Relay {
    pub(crate) fn new(include_usage: bool, request_bytes: usize, tariff: Tariff) -> Self {
        Self {
            framer: Framer::new(MAX_EVENT),
            include_usage,
            request_bytes,
            tariff,
            written_bytes: 0,
            usage: None,
            usage_event: None,
            head: Head::default(),
            finished: false,
            done: false,
        }
    }

    /// Takes the upstream's next bytes and writes what the client gets now to `out`.
    ///
    /// # Errors
    /// The last thing to tell the client: the upstream reported a failure, or makes no sense.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        self.framer.push(chunk);
        while !self.done {
            let event = self
                .framer
                .next_event()
                .map_err(|_| errors::nonsense("The provider sent an event larger than 1 MB."))?;
            let Some(event) = event else { return Ok(()) };
            self.event(event, out)?;
        }
        Ok(())
    }

    /// Whether `[DONE]` was passed on.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The upstream ended. Without `[DONE]`, the answer counts as complete when the model said that it finished.
    ///
    /// # Errors
    /// The last thing to tell the client, when the answer is not complete.
    pub(crate) fn end(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        if self.done {
            return Ok(());
        }
        let rest = self.framer.rest();
        if event_data(&rest).is_some() {
            let mut whole = BytesMut::from(&rest[..]);
            whole.extend_from_slice(b"\n\n");
            self.event(whole.freeze(), out)?;
        }
        if !self.done && !self.finished {
            return Err(errors::nonsense("The provider ended its stream in the middle."));
        }
        if !self.done {
            self.write_usage(out);
            out.extend_from_slice(b"data: [DONE]\n\n");
            self.done = true;
        }
        Ok(())
    }

    /// What was used so far, and what that costs.
    pub(crate) fn charged(&self) -> Charged {
        let counted = self.usage.as_ref().map(WireUsage::usage);
        let charged = self.tariff.charge(counted, self.estimated());
        if self.finished || self.usage_event.is_some() || self.done {
            return charged;
        }
        // What a provider counts on the way is not yet all.
        let own = self.tariff.charge(None, self.estimated());
        let more = if own.cost > charged.cost { own } else { charged };
        Charged { usage: Usage { estimated: true, ..more.usage }, ..more }
    }

    /// Whether the model wrote anything, or its provider counted something.
    pub(crate) fn has_content(&self) -> bool {
        self.written_bytes > 0 || self.usage.is_some()
    }

    fn event(&mut self, event: Bytes, out: &mut BytesMut) -> Result<(), Error> {
        let Some(data) = event_data(&event) else {
            out.extend_from_slice(&event);
            return Ok(());
        };
        if data.trim_ascii() == b"[DONE]" {
            self.write_usage(out);
            out.extend_from_slice(&event);
            self.done = true;
            return Ok(());
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(&data) else {
            // A sign of life, or a chunk whose members have other types than we know: the client may know better.
            let text = std::str::from_utf8(&data).map(str::trim);
            let is_object = |text: &str| text.starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok();
            let harmless = text.is_ok_and(|text| text.is_empty() || is_object(text));
            if !harmless {
                return Err(errors::nonsense("The provider sent an event that makes no sense."));
            }
            self.written_bytes += data.len();
            out.extend_from_slice(&event);
            return Ok(());
        };
        if chunk.error.is_some() {
            tracing::warn!("a provider reported an error in the middle of a stream");
            return Err(errors::nonsense("The provider failed in the middle of its answer."));
        }
        let only_usage = chunk.usage.is_some() && chunk.choices.as_ref().is_none_or(Vec::is_empty);
        self.note(chunk);
        if only_usage {
            self.usage_event = Some(event);
        } else {
            out.extend_from_slice(&event);
        }
        Ok(())
    }

    fn note(&mut self, chunk: Chunk<'_>) {
        if self.head.id.is_none() {
            self.head = Head {
                id: chunk.id.map(Cow::into_owned),
                model: chunk.model.map(Cow::into_owned),
                created: chunk.created.and_then(|number| number.as_i64()),
            };
        }
        for choice in chunk.choices.iter().flatten() {
            self.finished |= choice.finish_reason.is_some();
            // The delta without the braces and the name of its one member: near enough for an estimate.
            self.written_bytes += choice.delta.map_or(0, |delta| delta.get().len().saturating_sub(14));
        }
        let usage = chunk.usage.and_then(|usage| serde_json::from_str::<Option<WireUsage>>(usage.get()).ok());
        self.usage = usage.flatten().or(self.usage);
    }

    fn estimated(&self) -> Usage {
        Usage {
            input_tokens: estimate(self.request_bytes),
            output_tokens: estimate(self.written_bytes),
            cached_tokens: 0,
            estimated: true,
        }
    }

    /// The chunk with the usage, in the form the client can read: as OpenAI sends it to those who asked, else with one
    /// choice that says nothing, so that code which reads `choices[0]` of every chunk survives.
    fn write_usage(&mut self, out: &mut BytesMut) {
        let cost = self.charged().cost;
        match self.usage_event.take() {
            Some(event) if self.include_usage && cost.is_none() => out.extend_from_slice(&event),
            Some(event) => match rewritten(&event, cost, !self.include_usage) {
                Some(rewritten) => out.extend_from_slice(&rewritten),
                None => out.extend_from_slice(&self.made_chunk(cost)),
            },
            None => out.extend_from_slice(&self.made_chunk(cost)),
        }
    }

    fn made_chunk(&self, cost: Option<Nano>) -> Vec<u8> {
        let usage = self.usage.unwrap_or_else(|| WireUsage::from(self.estimated()));
        let usage = to_raw_value(&usage).ok().and_then(|usage| with_cost(&usage, cost));
        let choices: &[serde_json::Value] = if self.include_usage { &[] } else { &[empty_choice()] };
        let chunk = serde_json::json!({
            "id": self.head.id, "object": "chat.completion.chunk", "created": self.head.created, "model": self.head.model,
            "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n").into_bytes()
    }
}

fn empty_choice() -> serde_json::Value {
    serde_json::json!({ "index": 0, "delta": {}, "finish_reason": null })
}

/// The usage event with what the call costs, and, where wanted, with a choice that says nothing.
fn rewritten(event: &[u8], cost: Option<Nano>, choice: bool) -> Option<Vec<u8>> {
    let mut chunk: RawObject = serde_json::from_slice(&event_data(event)?).ok()?;
    if choice {
        chunk.set("choices", to_raw_value(&[empty_choice()]).ok()?);
    }
    let usage = with_cost(chunk.get("usage")?, cost)?;
    chunk.set("usage", usage);
    let mut out = b"data: ".to_vec();
    serde_json::to_writer(&mut out, &chunk).ok()?;
    out.extend_from_slice(b"\n\n");
    Some(out)
}

/// A `usage` with what the call costs its payer, in dollars.
pub(crate) fn with_cost(usage: &RawValue, cost: Option<Nano>) -> Option<Box<RawValue>> {
    let Some(cost) = cost else { return Some(usage.to_owned()) };
    let mut usage: RawObject = serde_json::from_str(usage.get()).ok()?;
    usage.set("cost", to_raw_value(&cost.usd_json()).ok()?);
    to_raw_value(&usage).ok()
}

#[cfg(test)]
mod tests;
