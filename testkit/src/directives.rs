//! `[fake head_delay=50 cut_after=3]` in a prompt: what this one request should suffer. Times are milliseconds.

use std::collections::HashMap;
use std::time::Duration;

/// The directives of one prompt.
#[derive(Clone, Debug, Default)]
pub struct Directives(HashMap<String, String>);

impl Directives {
    /// Finds the directives in `text`, which may be a whole request.
    pub fn parse(text: &str) -> Self {
        let inside = text.split("[fake ").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or("");
        let pairs = inside.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Whether `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value of `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The number after `name`.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }

    /// The milliseconds after `name`; none is zero.
    pub fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name).unwrap_or(0) as u64)
    }
}
