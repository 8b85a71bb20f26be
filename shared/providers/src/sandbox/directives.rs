//! Directives: `[sandbox delay=5s fail=provider_error]` anywhere in a prompt. Unknown ones are ignored.

use std::time::Duration;

/// The longest delay.
const MAX_DELAY: Duration = Duration::from_hours(1);

/// How a call is told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    ProviderError,
    ContentRefused,
    UnknownOutcome,
    Timeout,
}

/// What a prompt asks of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    /// How long the work takes.
    pub(super) delay: Duration,
    /// How long each word of a stream takes.
    pub(super) word_delay: Duration,
    pub(super) fail: Option<Fail>,
    /// How often a submit fails before it works.
    pub(super) fail_times: u32,
}

impl Directives {
    pub(super) fn parse(prompt: &str) -> Self {
        let mut found = Self::default();
        for part in prompt.split("[sandbox ").skip(1) {
            let inside = part.split(']').next().unwrap_or("");
            for (name, value) in inside.split_whitespace().filter_map(|word| word.split_once('=')) {
                match name {
                    "delay" => found.delay = duration(value),
                    "word_delay" => found.word_delay = duration(value),
                    "fail_times" => found.fail_times = value.parse().unwrap_or(0),
                    "fail" => {
                        found.fail = match value {
                            "provider_error" => Some(Fail::ProviderError),
                            "content_refused" => Some(Fail::ContentRefused),
                            "unknown_outcome" => Some(Fail::UnknownOutcome),
                            "timeout" => Some(Fail::Timeout),
                            _ => found.fail,
                        }
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// `5s`, `0.5s` or `200ms`; anything else is no delay.
fn duration(text: &str) -> Duration {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().unwrap_or(0.0) * unit;
    Duration::try_from_secs_f64(seconds).unwrap_or_default().min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_found_anywhere() {
        let found =
            Directives::parse("a cat [sandbox delay=5s fail=timeout] in a hat [sandbox fail_times=2 word_delay=20ms]");
        assert_eq!(found.delay, Duration::from_secs(5));
        assert_eq!(found.word_delay, Duration::from_millis(20));
        assert_eq!((found.fail, found.fail_times), (Some(Fail::Timeout), 2));
        for none in
            ["a cat", "[sandbox", "[sandbox ]", "[sandbox delay=x fail=what fail_times=-1]", "[sandbox delay=-5s]"]
        {
            assert_eq!(Directives::parse(none), Directives::default(), "{none}");
        }
        assert_eq!(Directives::parse("[sandbox delay=1e300s]").delay, Duration::ZERO);
    }
}
