//! `sandbox/chat`: says what it was asked, word by word, and counts its tokens truly.

use std::convert::Infallible;
use std::time::Duration;

use aig_domain::budget::{Billing, OpenCall, Reservation};
use aig_domain::json::RawObject;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::directives::{Directives, Fail};
use super::{LONGEST_SILENCE, Sandbox, seed};
use crate::{ChatCall, ChatProvider, ChatRefusal, ChatReply, ProviderError, ProviderErrorKind};

/// How much of the prompt is repeated in the answer, in words.
const ECHO: usize = 40;

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

/// A request that was understood.
struct Request {
    prompt: String,
    input_tokens: usize,
    max_tokens: Option<usize>,
    include_usage: bool,
}

#[async_trait]
impl ChatProvider for Sandbox {
    fn takes_stream_options(&self) -> bool {
        true
    }

    async fn chat(&self, reservation: Reservation, call: ChatCall) -> Result<ChatReply, ChatRefusal> {
        let refuse = |reservation: Reservation, billing, error| {
            Err(ChatRefusal { receipt: reservation.receipt(billing), error })
        };
        let request = match understand(&call.body) {
            Ok(request) => request,
            Err(error) => return refuse(reservation, Billing::NotSent, error),
        };
        let directives = Directives::parse(&request.prompt);
        tokio::time::sleep(directives.delay).await;
        let fail = |kind, message: &str| ProviderError::new(kind, message);
        match directives.fail {
            None => {}
            Some(Fail::ProviderError) => {
                let error = fail(ProviderErrorKind::Unavailable, "The sandbox failed, as it was told to.");
                return refuse(reservation, Billing::NotSent, error);
            }
            Some(Fail::ContentRefused) => {
                let error =
                    fail(ProviderErrorKind::ContentRefused, "The sandbox refused the content, as it was told to.");
                return refuse(reservation, Billing::NotSent, error);
            }
            Some(Fail::UnknownOutcome) => {
                let error = fail(ProviderErrorKind::Unavailable, "The sandbox lost its answer, as it was told to.");
                return refuse(reservation, Billing::MaybeBilled, error);
            }
            Some(Fail::Timeout) => {
                tokio::time::sleep(LONGEST_SILENCE).await;
                let error = fail(ProviderErrorKind::Timeout, "The sandbox did not answer, as it was told to.");
                return refuse(reservation, Billing::MaybeBilled, error);
            }
        }
        let answer = Answer::new(&request, &call, self.clock.now().unix_seconds());
        let chunks = if call.stream { answer.events(request.include_usage) } else { vec![answer.whole()] };
        let body = stream::iter(chunks).then(move |chunk| paced(chunk, directives.word_delay));
        Ok(ChatReply {
            open: OpenCall::new(reservation),
            body: Box::pin(body.map(|chunk| chunk.map_err(|e| match e {}))),
        })
    }
}

async fn paced(chunk: Bytes, delay: Duration) -> Result<Bytes, Infallible> {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    Ok(chunk)
}

fn understand(body: &RawObject) -> Result<Request, ProviderError> {
    let invalid = |message: String| ProviderError::new(ProviderErrorKind::InvalidInput, message);
    let read = |error: aig_domain::Error| invalid(error.message);
    let messages: Vec<Message> = body
        .read("messages", "a list of objects with `role` and `content`")
        .map_err(read)?
        .ok_or_else(|| invalid("`messages` is required.".into()))?;
    if messages.is_empty() {
        return Err(invalid("`messages` is empty.".into()));
    }
    if body.read::<u64>("n", "a whole number").map_err(read)?.unwrap_or(1) != 1 {
        return Err(invalid("`n` must be 1 for this model.".into()));
    }
    let mut texts = Vec::with_capacity(messages.len());
    for message in &messages {
        if !["system", "developer", "user", "assistant", "tool"].contains(&message.role.as_str()) {
            return Err(invalid(format!("`{}` is not a role.", message.role.chars().take(40).collect::<String>())));
        }
        texts.push(
            text_of(&message.content)
                .ok_or_else(|| invalid("`content` must be a string or a list of parts.".into()))?,
        );
    }
    let last_user = messages.iter().rposition(|message| message.role == "user");
    let limit = |name| body.read::<u64>(name, "a whole number").map_err(read);
    let max_tokens = limit("max_completion_tokens")?.or(limit("max_tokens")?);
    let options: Option<Value> = body.read("stream_options", "an object").map_err(read)?;
    Ok(Request {
        input_tokens: texts.iter().map(|text| tokens(text)).sum(),
        prompt: last_user.map(|index| texts[index].clone()).unwrap_or_default(),
        max_tokens: max_tokens.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        include_usage: options.is_some_and(|options| options["include_usage"] == true),
    })
}

/// The text of a message: a string, the text parts of a list, or nothing.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            Some(texts.join("\n"))
        }
        _ => None,
    }
}

/// The sandbox's tokens: words, and every other character that is not a space.
fn tokens(text: &str) -> usize {
    let mut count = 0;
    let mut in_word = false;
    for c in text.chars() {
        let word = c.is_alphanumeric();
        if !c.is_whitespace() && (!word || !in_word) {
            count += 1;
        }
        in_word = word;
    }
    count
}

struct Answer {
    id: String,
    created: i64,
    model: String,
    words: Vec<String>,
    finish_reason: &'static str,
    usage: Value,
}

impl Answer {
    fn new(request: &Request, call: &ChatCall, created: i64) -> Self {
        let echo: Vec<&str> = request.prompt.split_whitespace().take(ECHO).collect();
        let text = format!(
            "This is the sandbox. You said: {}",
            if echo.is_empty() { "nothing".into() } else { echo.join(" ") }
        );
        let mut words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let (mut written, mut finish_reason) = (0, "stop");
        for (index, word) in words.iter().enumerate() {
            if request.max_tokens.is_some_and(|limit| written + tokens(word) > limit) {
                words.truncate(index);
                finish_reason = "length";
                break;
            }
            written += tokens(word);
        }
        let usage = json!({
            "prompt_tokens": request.input_tokens,
            "completion_tokens": written,
            "total_tokens": request.input_tokens + written,
            "prompt_tokens_details": { "cached_tokens": 0 },
            "completion_tokens_details": { "reasoning_tokens": 0 },
        });
        let id = format!("chatcmpl-{:016x}", seed(&format!("{} {}", call.request_id, request.prompt)));
        Self { id, created, model: "sandbox/chat".into(), words, finish_reason, usage }
    }

    fn whole(&self) -> Bytes {
        let message = json!({ "role": "assistant", "content": self.words.concat(), "refusal": null });
        let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason });
        let body = json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [choice], "usage": self.usage,
        });
        body.to_string().into()
    }

    fn events(&self, include_usage: bool) -> Vec<Bytes> {
        let event = |choices: Value, usage: Value| {
            let mut chunk = json!({
                "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
                "choices": choices,
            });
            if include_usage {
                chunk["usage"] = usage;
            }
            Bytes::from(format!("data: {chunk}\n\n"))
        };
        let delta = |delta: Value, finish: Value| {
            event(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]), Value::Null)
        };
        let mut events = vec![delta(json!({ "role": "assistant", "content": "" }), Value::Null)];
        events.extend(self.words.iter().map(|word| delta(json!({ "content": word }), Value::Null)));
        events.push(delta(json!({}), json!(self.finish_reason)));
        if include_usage {
            events.push(event(json!([]), self.usage.clone()));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aig_domain::Nano;
    use aig_domain::clock::SystemClock;
    use futures_util::TryStreamExt as _;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the test stands in for the ledger")]
    async fn chat(body: &str, stream: bool) -> Result<String, ChatRefusal> {
        let body = RawObject::parse(body.as_bytes()).unwrap();
        let call = ChatCall { body: body.into(), stream, request_id: "req_1".into() };
        let reservation = Reservation::mint("req_1".into(), Nano::ZERO);
        let reply = Sandbox::new(Arc::new(SystemClock)).chat(reservation, call).await?;
        let chunks: Vec<Bytes> = reply.body.try_collect().await.unwrap();
        Ok(String::from_utf8(chunks.concat()).unwrap())
    }

    #[tokio::test]
    async fn it_says_what_it_was_asked_and_counts_truly() {
        let answer = chat(
            r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi, you!"}]}"#,
            false,
        );
        let answer: Value = serde_json::from_str(&answer.await.unwrap()).unwrap();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(text, "This is the sandbox. You said: Hi, you!");
        assert_eq!(answer["usage"]["prompt_tokens"], 7);
        assert_eq!(answer["usage"]["completion_tokens"], tokens(text));
    }

    #[tokio::test]
    async fn a_stream_says_the_same_word_by_word() {
        let body = |options: &str| format!(r#"{{"messages":[{{"role":"user","content":"a b c"}}]{options}}}"#);
        let events = chat(&body(r#","stream_options":{"include_usage":true}"#), true).await.unwrap();
        let events: Vec<&str> =
            events.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        assert_eq!(events.last(), Some(&"[DONE]"));
        let chunks: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
        let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "This is the sandbox. You said: a b c");
        assert_eq!(chunks.last().unwrap()["usage"]["prompt_tokens"], 3);
        assert_eq!(chunks.last().unwrap()["choices"], json!([]));
        assert!(!chat(&body(""), true).await.unwrap().contains("usage"));
    }

    #[tokio::test]
    async fn limits_and_bad_requests() {
        let body = r#"{"max_tokens":3,"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#;
        let cut: Value = serde_json::from_str(&chat(body, false).await.unwrap()).unwrap();
        assert_eq!(cut["choices"][0]["finish_reason"], "length");
        assert_eq!(cut["usage"]["completion_tokens"], 3);
        for bad in [
            r"{}",
            r#"{"messages":[]}"#,
            r#"{"messages":"x"}"#,
            r#"{"messages":[{"role":"god","content":"x"}]}"#,
            r#"{"messages":[{"content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":7}]}"#,
            r#"{"n":2,"messages":[{"role":"user","content":"x"}]}"#,
            r#"{"max_tokens":-1,"messages":[{"role":"user"}]}"#,
        ] {
            let refusal = chat(bad, false).await.unwrap_err();
            assert_eq!(refusal.error.kind, ProviderErrorKind::InvalidInput, "{bad}");
            assert_eq!(refusal.receipt.billing(), &Billing::NotSent);
        }
    }
}
