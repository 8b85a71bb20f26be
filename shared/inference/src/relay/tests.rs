//! The relay as a function from bytes to bytes.

use aig_domain::ErrorKind;
use aig_domain::price::{Pico, Price, PriceList, Unit};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const CONTENT: &str = "data: {\"id\":\"c\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";
const FINISH: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"x\":1.0e0,\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":1}}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// Relays chunks to their end: what the client gets, the error if there is one, and the usage.
fn relay<'a>(include_usage: bool, chunks: impl IntoIterator<Item = &'a [u8]>) -> (String, Option<Error>, Usage) {
    let (mut relay, mut out) = (Relay::new(include_usage, 40, Tariff::default()), BytesMut::new());
    let run = || {
        for chunk in chunks {
            relay.push(chunk, &mut out)?;
        }
        relay.end(&mut out)
    };
    let error = run().err();
    (String::from_utf8_lossy(&out).into_owned(), error, relay.charged().usage)
}

fn whole(include_usage: bool, text: &str) -> (String, Option<Error>, Usage) {
    relay(include_usage, [text.as_bytes()])
}

fn last_chunk(out: &str) -> Value {
    let events: Vec<&str> = out.split_terminator("\n\n").collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"), "{out}");
    serde_json::from_str(events[events.len() - 2].strip_prefix("data: ").unwrap()).unwrap()
}

#[test]
fn who_asked_for_usage_gets_the_upstreams_bytes() {
    let stream = [": hello\n\n", CONTENT, FINISH, USAGE, DONE].concat();
    let (out, error, usage) = whole(true, &stream);
    assert_eq!((out, error), (stream, None));
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.estimated), (3, 2, 1, false));
}

#[test]
fn who_did_not_ask_gets_usage_with_a_choice_that_says_nothing() {
    let (out, error, _) = whole(false, &[CONTENT, FINISH, USAGE, DONE].concat());
    assert_eq!(error, None);
    assert!(out.starts_with(&[CONTENT, FINISH].concat()), "all else is verbatim: {out}");
    let chunk = last_chunk(&out);
    assert_eq!(chunk["choices"], serde_json::json!([{ "index": 0, "delta": {}, "finish_reason": null }]));
    assert_eq!(chunk["usage"]["total_tokens"], 5);
    assert!(out.contains("\"x\":1.0e0"), "unknown members stay as they are");
}

#[test]
fn usage_that_never_came_is_estimated() {
    let (out, error, usage) = whole(false, &[CONTENT, FINISH, DONE].concat());
    assert_eq!(error, None);
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (10, 1, true));
    let chunk = last_chunk(&out);
    assert_eq!(
        (chunk["id"].as_str(), chunk["model"].as_str(), chunk["created"].as_i64()),
        (Some("c"), Some("m"), Some(7))
    );
    assert_eq!(chunk["usage"]["prompt_tokens"], 10);
    assert_eq!(last_chunk(&whole(true, &[CONTENT, FINISH, DONE].concat()).0)["choices"], serde_json::json!([]));
}

#[test]
fn usage_on_the_last_content_chunk_counts() {
    let finish =
        FINISH.replace("}]}", "}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"total_tokens\":10}}");
    let (out, _, usage) = whole(false, &[CONTENT, &finish, DONE].concat());
    assert_eq!((usage.input_tokens, usage.estimated), (9, false));
    assert!(out.contains(&finish));
    assert_eq!(last_chunk(&out)["usage"]["prompt_tokens"], 9);
}

#[test]
fn a_stream_without_done_is_complete_once_the_model_finished() {
    for stream in [[CONTENT, FINISH, USAGE].concat(), [CONTENT, FINISH.trim_end()].concat()] {
        let (out, error, _) = whole(true, &stream);
        assert_eq!(error, None);
        assert!(out.ends_with(DONE), "{out}");
    }
    let (out, error, usage) = whole(true, CONTENT);
    assert_eq!((out.as_str(), error.unwrap().kind), (CONTENT, ErrorKind::Provider));
    assert!(usage.estimated && usage.output_tokens > 0, "what was written counts");
}

#[test]
fn failures_in_the_middle_end_the_stream() {
    for bad in
        ["data: {\"error\":{\"message\":\"overloaded\"}}\n\n", "data: {\n\n", "data: <html>\n\n", "data: \"x\"\n\n"]
    {
        let (out, error, _) = whole(true, &[CONTENT, bad, CONTENT, DONE].concat());
        assert_eq!((out.as_str(), error.unwrap().kind), (CONTENT, ErrorKind::Provider), "{bad}");
    }
    let endless = "data: ".to_owned() + &"x".repeat(MAX_EVENT + 1);
    assert_eq!(whole(true, &endless).1.unwrap().kind, ErrorKind::Provider);
}

#[test]
fn nothing_is_relayed_after_the_end() {
    let (out, error, _) = whole(true, &[CONTENT, FINISH, DONE, CONTENT].concat());
    assert!(error.is_none() && out.ends_with(DONE), "{out}");
}

fn event() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(CONTENT.to_owned()),
        1 => Just(CONTENT.replace('\n', "\r\n")),
        1 => Just(CONTENT.replace("Hi", "\u{4e16}\u{754c} \u{1f600}")),
        1 => Just(": comment\n\n".to_owned()),
        1 => Just("data: {\"choices\":\ndata: []}\n\n".to_owned()),
        1 => Just(FINISH.to_owned()),
        1 => Just(USAGE.to_owned()),
        1 => Just("data: {\"error\":{}}\n\n".to_owned()),
        1 => Just(DONE.to_owned()),
        1 => Just("data: {\"cut".to_owned()),
    ]
}

proptest! {
    #[test]
    fn every_split_into_chunks_gives_the_client_the_same_bytes(
        events in proptest::collection::vec(event(), 0..12),
        cuts in proptest::collection::vec(0usize..1500, 0..20),
        include_usage: bool,
    ) {
        let stream = events.concat().into_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(&stream[from..cut]);
            from = cut;
        }
        chunks.push(&stream[from..]);
        let expected = relay(include_usage, [&stream[..]]);
        prop_assert_eq!(relay(include_usage, chunks), expected.clone());
        prop_assert_eq!(relay(include_usage, stream.chunks(1)), expected);
    }
}

#[test]
fn members_of_other_types_pass_and_nonsense_does_not() {
    let odd = [
        "data: {\"id\":\"c\",\"created\":7.5,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n",
        "data: {\"id\":7,\"choices\":\"none\"}\n\n",
        "data:\n\n",
        FINISH,
        "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3.0,\"completion_tokens\":null}}\n\n",
        DONE,
    ];
    let (out, error, usage) = whole(true, &odd.concat());
    assert_eq!((out, error), (odd.concat(), None));
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (3, 0, false));
    let (_, error, _) = relay(false, [CONTENT.as_bytes(), b"data: {\"id\":7,\"a\":\"\xff\"}\n\n", DONE.as_bytes()]);
    assert!(error.is_some(), "bytes that are no text");
}

fn priced(chunks: &str, bound: Option<Nano>) -> Charged {
    let list = PriceList::default().with(Unit::Input, Pico(1000)).with(Unit::Output, Pico(1000));
    let tariff = Tariff { price: Some(Price { list, margin_bp: 0 }), bound };
    let (mut relay, mut out) = (Relay::new(true, 40, tariff), BytesMut::new());
    relay.push(chunks.as_bytes(), &mut out).unwrap();
    relay.charged()
}

#[test]
fn what_is_counted_on_the_way_is_not_yet_all() {
    let with_usage =
        CONTENT.replace("\"choices\"", "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":0},\"choices\"");
    let text = "x".repeat(400);
    let long = CONTENT.replace("Hi", &text);
    let cut = priced(&[with_usage.as_str(), &long].concat(), None);
    assert!(cut.usage.estimated && cut.cost > Some(Nano(100)), "what came is more than was counted so far: {cut:?}");
    let counted = with_usage.replace("\"completion_tokens\":0", "\"completion_tokens\":5000");
    let cut = priced(&counted, None);
    assert_eq!((cut.cost, cut.usage.estimated), (Some(Nano(5003)), true), "it may become more");
    let whole = priced(&[with_usage.as_str(), FINISH, USAGE].concat(), None);
    assert_eq!((whole.cost, whole.usage.estimated), (Some(Nano(5)), false));
}

#[test]
fn thoughts_that_are_counted_apart_are_output() {
    let of = |completion: u64, thought: u64, total: u64| {
        let usage = serde_json::json!({
            "prompt_tokens": 10, "completion_tokens": completion, "total_tokens": total,
            "completion_tokens_details": { "reasoning_tokens": thought },
        });
        serde_json::from_value::<WireUsage>(usage).unwrap().usage().output_tokens
    };
    assert_eq!(of(1, 386, 397), 387, "in the total alone");
    assert_eq!(of(387, 386, 397), 387, "within what was written");
    assert_eq!(of(1, 386, 50_000), 1, "a total that says something else says nothing");
}
