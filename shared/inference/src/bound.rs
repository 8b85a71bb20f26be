//! The most that a chat call may cost: what is reserved where a cap may stand above it.
//!
//! A token covers at least one byte, so the request's bytes bound what is read; the output limit that the provider gets bounds
//! what is written, and one is sent where the client set none. What cannot be bounded is refused, not guessed.

use std::borrow::Cow;

use aig_domain::catalog::{Modality, Model, TokenLimits};
use aig_domain::job::asked_millis;
use aig_domain::json::RawObject;
use aig_domain::price::{Price, Unit, Used};
use aig_domain::{Error, ErrorKind, Nano};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most choices that a capped call may ask for.
const MOST_CHOICES: u64 = 128;

/// Members that this gateway reads or sets. An upstream that does not mind capitals would take another spelling for them.
const READ: [&str; 12] = [
    "model",
    "models",
    "messages",
    "stream",
    "stream_options",
    MAX_TOKENS,
    MAX_COMPLETION_TOKENS,
    "n",
    "tools",
    "prediction",
    "functions",
    "response_format",
];
const MAX_TOKENS: &str = "max_tokens";
const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";

/// Members of which it is known that they cost no more than the tokens they lead to. Below a cap there may be no others.
const BOUNDED: [&str; 42] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    MAX_TOKENS,
    MAX_COMPLETION_TOKENS,
    "n",
    "tools",
    "prediction",
    "functions",
    "response_format",
    "tool_choice",
    "function_call",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "seed",
    "user",
    "metadata",
    "store",
    "reasoning_effort",
    "include_reasoning",
    "verbosity",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "thinking",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "chat_template_kwargs",
];

/// The same, with one of these values.
const BOUNDED_AS: [(&str, &[&str]); 2] =
    [("service_tier", &["\"auto\"", "\"default\"", "\"flex\""]), ("modalities", &["[\"text\"]"])];

/// Members of a message whose size bounds what the model reads of them. An answer that is sent back has some of its own.
const OF_MESSAGES: [&str; 14] = [
    "role",
    "name",
    "content",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "annotations",
    "cache_control",
    "provider_specific_fields",
    "prefix",
];

/// What a capped call may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The most that it may cost.
    pub(crate) amount: Nano,
    /// The limit on its output, which has to be sent.
    pub(crate) output_limit: u64,
    /// Whether the client asked for that limit.
    pub(crate) is_asked: bool,
}

/// Refuses other spellings of the members that decide over a call.
///
/// # Errors
/// A 400 that names the member.
pub(crate) fn check_spelling(body: &RawObject) -> Result<(), Error> {
    for (name, _) in body.iter() {
        if let Some(meant) = READ.iter().find(|known| known.eq_ignore_ascii_case(name) && **known != name) {
            return Err(Error::invalid(name, format!("`{name}` must be written `{meant}`. Nothing was done.")));
        }
    }
    Ok(())
}

/// Bounds the cost of `body` for `model`, whose provider calls the limit of the output `limit_name`. `default_limit` is the limit of a
/// call that sets none.
///
/// # Errors
/// A 400 that says what to change when the cost has no bound, or the model no price.
pub(crate) fn bound(
    body: &RawObject,
    model: &Model,
    limit_name: &'static str,
    default_limit: u64,
) -> Result<Bound, Error> {
    let price = model.price.filter(Price::prices_chat).ok_or_else(|| not_priced(&model.id))?;
    for (name, value) in body.iter() {
        let is_fine = BOUNDED_AS.iter().any(|(known, values)| *known == name && values.contains(&value.get()));
        if !BOUNDED.contains(&name) && !is_fine && value.get() != "null" {
            return Err(unbounded(name, "what it may cost is not known here"));
        }
    }
    check_tools(body)?;
    let limit = |name| body.read::<u64>(name, "a whole number above 0");
    let asked = match limit(limit_name)? {
        None => limit(if limit_name == MAX_TOKENS { MAX_COMPLETION_TOKENS } else { MAX_TOKENS })?,
        asked => asked,
    };
    if asked == Some(0) {
        return Err(unbounded(limit_name, "some models take 0 for no limit"));
    }
    let limit = asked.unwrap_or_else(|| model.limits.max_output_tokens.unwrap_or(default_limit).min(default_limit));
    let choices = body.read::<u64>("n", "a whole number above 0")?.unwrap_or(1);
    if !(1..=MOST_CHOICES).contains(&choices) {
        return Err(unbounded("n", "it must be from 1 to 128"));
    }
    let bytes = size(body);
    let input = if is_all_text(body) { bytes } else { media_input(model.limits)?.max(bytes) };
    // Rejected predictions are billed as output.
    let predicted = body.get("prediction").map_or(0, |value| value.get().len() as u64);
    let output = limit.checked_mul(choices).and_then(|output| output.checked_add(predicted));
    // Cached input may be dearer than fresh input.
    let amount = output.and_then(|output_tokens| {
        price.most(&Used { input_tokens: input, output_tokens, requests: 1, ..Used::default() })
    });
    let amount = amount.filter(|amount| *amount <= Nano::MOST_PER_REQUEST);
    let amount =
        amount.ok_or_else(|| unbounded(limit_name, "this much output could cost more than any request may"))?;
    Ok(Bound { amount, output_limit: limit, is_asked: asked.is_some() })
}

/// Sets the limit of the output under the one name that the provider knows.
pub(crate) fn set_limit(body: &mut RawObject, limit_name: &'static str, limit: Box<RawValue>) {
    for name in [MAX_TOKENS, MAX_COMPLETION_TOKENS] {
        if name != limit_name {
            body.remove(name);
        }
    }
    body.set(limit_name, limit);
}

/// The bytes of what the model reads: for the estimate when no usage comes.
pub(crate) fn read_bytes(body: &RawObject) -> usize {
    ["messages", "tools", "functions"]
        .into_iter()
        .filter_map(|name| body.get(name))
        .map(|value| value.get().len())
        .sum()
}

/// Tools that the provider runs cost what only it knows.
fn check_tools(body: &RawObject) -> Result<(), Error> {
    let Some(tools) = body.read::<Vec<Typed<'_>>>("tools", "a list of tools")? else { return Ok(()) };
    match tools.iter().find(|tool| !matches!(&*tool.kind, "function" | "custom")) {
        Some(tool) if tool.kind.is_empty() => {
            Err(Error::invalid("tools", "Every tool must have a `type`. Nothing was done."))
        }
        Some(tool) => Err(unbounded("tools", &format!("`{}` is a tool that the provider runs", tool.kind))),
        None => Ok(()),
    }
}

/// The request's size: at least as many bytes as the provider reads tokens, since the names and quotes of a message are more
/// than what its template adds.
fn size(body: &RawObject) -> u64 {
    body.iter().map(|(name, value)| (name.len() + value.get().len() + 4) as u64).sum::<u64>() + 2
}

/// Something with a type.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
}

/// Whether the conversation holds nothing but text: the tokens of a picture have nothing to do with its bytes. What is not of
/// the shape of messages counts as something else.
fn is_all_text(body: &RawObject) -> bool {
    let Some(messages) = body.get("messages") else { return true };
    let Ok(messages) = serde_json::from_str::<Vec<RawObject>>(messages.get()) else { return false };
    messages.iter().flat_map(RawObject::iter).all(|(name, value)| {
        let text = value.get();
        text == "null"
            || OF_MESSAGES.contains(&name)
                && (name != "content"
                    || text.starts_with('"')
                    || serde_json::from_str::<Vec<Typed<'_>>>(text)
                        .is_ok_and(|parts| parts.iter().all(|part| matches!(&*part.kind, "text" | "refusal"))))
    })
}

fn media_input(limits: TokenLimits) -> Result<u64, Error> {
    limits.max_input_tokens.ok_or_else(|| {
        unbounded("messages", "it holds more than text, and how much of that the model reads is not in the catalogue")
    })
}

fn unbounded(param: &str, why: &str) -> Error {
    let message = format!(
        "A cap stands above this request, and with this `{param}` its cost has no bound: {why}. Nothing was sent or charged. \
         Change it, or use a key without a cap."
    );
    Error::invalid(param, message)
}

/// What a job of `modality` costs that asks for `params`: exactly that is reserved, and charged when it completes. Nothing for a
/// model without a price, unless a cap may stand above the job.
///
/// # Errors
/// A 400 when the model has no price below a cap, or is paid by the second and the request does not say how many.
pub fn job_cost(
    model: &Model,
    modality: Modality,
    params: &Map<String, Value>,
    is_capped: bool,
) -> Result<Nano, Error> {
    let Some(price) = model.price.filter(|price| price.prices_job(modality)) else {
        return if is_capped { Err(not_priced(&model.id)) } else { Ok(Nano::ZERO) };
    };
    let millis = asked_millis(params);
    let by_the_second = match modality {
        Modality::Video => price.list.get(Unit::VideoSecond).is_some(),
        Modality::Music => price.list.get(Unit::MusicSecond).is_some(),
        Modality::Text | Modality::ThreeD => false,
    };
    if by_the_second && millis.is_none() {
        let message = format!("`{}` is paid by the second: say how many in `duration`. Nothing was done.", model.id);
        return Err(Error::invalid("duration", message));
    }
    price
        .cost(&Used::job(modality, millis.unwrap_or(0)))
        .ok_or_else(|| Error::invalid("duration", "This job would cost more than an amount can be. Nothing was done."))
}

/// A model without a price, where a cap has to hold.
pub(crate) fn not_priced(model: &str) -> Error {
    let message = format!(
        "`{model}` has no price here, and a cap stands above this request. Nothing was sent or charged. Use a model with a price, \
         or ask the operator to set one."
    );
    Error { param: Some("model".into()), ..Error::new(ErrorKind::ModelNotPriced, message) }
}

#[cfg(test)]
mod tests {
    use aig_domain::price::{Pico, PriceList, Unit};

    use super::*;

    fn model() -> Model {
        let list = PriceList::default().with(Unit::Input, Pico(1000)).with(Unit::Output, Pico(1_000_000));
        Model {
            id: "up/m".into(),
            provider: "up".into(),
            modality: None,
            price: Some(Price { list, margin_bp: 0 }),
            limits: TokenLimits::default(),
            duration: None,
            deadline: None,
        }
    }

    fn bound_of(body: &str, model: &Model) -> Result<Bound, Error> {
        bound(&RawObject::parse(body.as_bytes()).unwrap(), model, "max_tokens", 4096)
    }

    #[test]
    fn bytes_bound_the_input_and_the_limit_the_output() {
        let body = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":10,"n":3}"#;
        let bound = bound_of(body, &model()).unwrap();
        assert_eq!((bound.output_limit, bound.is_asked), (10, true));
        let input = bound.amount.0 - 30 * 1000;
        let bytes = i64::try_from(body.len()).unwrap();
        assert!((bytes..bytes + 8).contains(&input), "{input} for {} bytes", body.len());
        let both = r#"{"messages":[],"max_tokens":10,"max_completion_tokens":99}"#;
        assert_eq!(bound_of(both, &model()).unwrap().output_limit, 10, "the name that the provider knows");
        let mut body = RawObject::parse(both.as_bytes()).unwrap();
        set_limit(&mut body, "max_tokens", serde_json::value::to_raw_value(&10).unwrap());
        assert!(body.get("max_completion_tokens").is_none(), "and nothing else is sent");
        assert_eq!(bound_of(r#"{"messages":[],"max_completion_tokens":9}"#, &model()).unwrap().output_limit, 9);
    }

    #[test]
    fn who_sets_no_limit_gets_one() {
        let none = r#"{"messages":[]}"#;
        let bound = bound_of(none, &model()).unwrap();
        assert_eq!((bound.output_limit, bound.is_asked), (4096, false));
        let small = Model { limits: TokenLimits { max_output_tokens: Some(100), max_input_tokens: None }, ..model() };
        assert_eq!(bound_of(none, &small).unwrap().output_limit, 100);
        assert_eq!(bound_of(r#"{"messages":[],"max_tokens":null}"#, &small).unwrap().output_limit, 100);
    }

    #[test]
    fn what_has_no_bound_is_refused() {
        for body in [
            r#"{"messages":[],"max_tokens":-1}"#,
            r#"{"messages":[],"max_tokens":0}"#,
            r#"{"messages":[],"max_tokens":1,"n_predict":-1}"#,
            r#"{"messages":[],"models":["dear"]}"#,
            r#"{"messages":[],"service_tier":"priority"}"#,
            r#"{"messages":[],"tools":[{"type":"web_search"}]}"#,
            r#"{"messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#,
            r#"{"messages":[{"role":"user","content":{"type":"image_url"}}]}"#,
            r#"{"messages":"hello"}"#,
            r#"{"messages":[],"max_tokens":1.5}"#,
            r#"{"messages":[],"max_tokens":18446744073709551615}"#,
            r#"{"messages":[],"n":0}"#,
            r#"{"messages":[],"n":1000000}"#,
            r#"{"messages":[],"web_search_options":{}}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}]}"#,
        ] {
            assert_eq!(bound_of(body, &model()).unwrap_err().kind, ErrorKind::InvalidRequest, "{body}");
        }
        let unpriced = Model { price: None, ..model() };
        assert_eq!(bound_of(r#"{"messages":[]}"#, &unpriced).unwrap_err().kind, ErrorKind::ModelNotPriced);
    }

    #[test]
    fn capitals_do_not_hide_what_decides_over_a_call() {
        let check = |body: &str| check_spelling(&RawObject::parse(body.as_bytes()).unwrap());
        assert!(check(r#"{"model":"a","max_tokens":1,"n":2,"My_Field":3}"#).is_ok());
        for body in [r#"{"model":"a","Model":"dear"}"#, r#"{"MAX_TOKENS":100000}"#, r#"{"N":9}"#, r#"{"Stream":true}"#]
        {
            assert_eq!(check(body).unwrap_err().kind, ErrorKind::InvalidRequest, "{body}");
        }
    }

    #[test]
    fn pictures_cost_what_the_model_can_read() {
        let limits = TokenLimits { max_input_tokens: Some(100_000), max_output_tokens: None };
        let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}],"max_tokens":1}"#;
        assert_eq!(bound_of(body, &Model { limits, ..model() }).unwrap().amount, Nano(101_000));
        let text = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},
            {"role":"assistant","content":"b","annotations":[],"audio":null,"refusal":null}],"max_tokens":1,"service_tier":"auto"}"#;
        assert!(bound_of(text, &Model { limits, ..model() }).unwrap().amount < Nano(2000));
    }
}
