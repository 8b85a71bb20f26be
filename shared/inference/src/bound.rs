//! The most that a chat call may cost: what is reserved where a cap may stand above it.
//!
//! A token covers at least one byte, so the request's bytes bound what is read; the output limit that the provider gets bounds
//! what is written, and one is sent where the client set none. What cannot be bounded is refused, not guessed.

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

/// What a capped call may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The most that it may cost.
    pub(crate) amount: Nano,
    /// The limit that has to be sent with it, since the client set none.
    pub(crate) output_limit: Option<u64>,
}

/// Bounds the cost of `body` for `model`. `default_limit` is the output limit of a call that sets none.
///
/// # Errors
/// A 400 that says what to change when the cost has no bound, or the model no price.
pub(crate) fn bound(body: &RawObject, model: &Model, default_limit: u64) -> Result<Bound, Error> {
    let price = model.price.filter(Price::prices_chat).ok_or_else(|| not_priced(&model.id))?;
    for name in ["web_search_options", "audio"] {
        if body.get(name).is_some_and(|value| value.get() != "null") {
            return Err(unbounded(name, "it costs what only the provider knows"));
        }
    }
    let asked = ["max_completion_tokens", "max_tokens"]
        .into_iter()
        .map(|name| body.read::<u64>(name, "a whole number that is not negative"))
        .collect::<Result<Vec<_>, Error>>()?;
    // Which of the two a provider obeys differs.
    let asked = asked.into_iter().flatten().max();
    let limit = asked.unwrap_or_else(|| model.limits.max_output_tokens.unwrap_or(default_limit).min(default_limit));
    let choices = body.read::<u64>("n", "a whole number above 0")?.unwrap_or(1);
    if !(1..=MOST_CHOICES).contains(&choices) {
        return Err(unbounded("n", "it must be from 1 to 128"));
    }
    let bytes = size(body);
    let input = if has_media(body) { media_input(model.limits)?.max(bytes) } else { bytes };
    // Rejected predictions are billed as output.
    let predicted = body.get("prediction").map_or(0, |value| value.get().len() as u64);
    let output = limit.checked_mul(choices).and_then(|output| output.checked_add(predicted));
    // Cached input may be dearer than fresh input.
    let amount = output.and_then(|output_tokens| {
        price.most(&Used { input_tokens: input, output_tokens, requests: 1, ..Used::default() })
    });
    let amount =
        amount.ok_or_else(|| unbounded("max_tokens", "this much output could cost more than an amount can be"))?;
    Ok(Bound { amount, output_limit: asked.is_none().then_some(limit) })
}

/// The request's size: at least as many bytes as the provider reads tokens, since the names and quotes of a message are more
/// than what its template adds.
fn size(body: &RawObject) -> u64 {
    body.iter().map(|(name, value)| (name.len() + value.get().len() + 4) as u64).sum::<u64>() + 2
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
}

/// Whether the conversation holds more than text: the tokens of a picture have nothing to do with its bytes.
fn has_media(body: &RawObject) -> bool {
    let Some(messages) = body.get("messages") else { return false };
    // What is not of this shape the provider will refuse; until then it counts as what cannot be bounded by its bytes.
    let Ok(messages) = serde_json::from_str::<Vec<Message<'_>>>(messages.get()) else { return true };
    messages.into_iter().filter_map(|message| message.content).any(|content| {
        let text = content.get();
        text.starts_with('[')
            && serde_json::from_str::<Vec<Part<'_>>>(text)
                .map_or(true, |parts| parts.iter().any(|part| !matches!(&*part.kind, "text" | "refusal")))
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
        bound(&RawObject::parse(body.as_bytes()).unwrap(), model, 4096)
    }

    #[test]
    fn bytes_bound_the_input_and_the_limit_the_output() {
        let body = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":10,"n":3}"#;
        let bound = bound_of(body, &model()).unwrap();
        assert_eq!(bound.output_limit, None);
        let input = bound.amount.0 - 30 * 1000;
        let bytes = i64::try_from(body.len()).unwrap();
        assert!((bytes..bytes + 8).contains(&input), "{input} for {} bytes", body.len());
        let larger = bound_of(r#"{"messages":[],"max_tokens":10,"max_completion_tokens":99}"#, &model()).unwrap();
        assert!(larger.amount > Nano(99_000));
    }

    #[test]
    fn who_sets_no_limit_gets_one() {
        let none = r#"{"messages":[]}"#;
        assert_eq!(bound_of(none, &model()).unwrap().output_limit, Some(4096));
        let small = Model { limits: TokenLimits { max_output_tokens: Some(100), max_input_tokens: None }, ..model() };
        assert_eq!(bound_of(none, &small).unwrap().output_limit, Some(100));
        assert_eq!(bound_of(r#"{"messages":[],"max_tokens":null}"#, &small).unwrap().output_limit, Some(100));
    }

    #[test]
    fn what_has_no_bound_is_refused() {
        for body in [
            r#"{"messages":[],"max_tokens":-1}"#,
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
    fn pictures_cost_what_the_model_can_read() {
        let limits = TokenLimits { max_input_tokens: Some(100_000), max_output_tokens: None };
        let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}],"max_tokens":1}"#;
        assert_eq!(bound_of(body, &Model { limits, ..model() }).unwrap().amount, Nano(101_000));
        let text = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"max_tokens":1}"#;
        assert!(bound_of(text, &Model { limits, ..model() }).unwrap().amount < Nano(2000));
    }
}
