//! What an owner may set on keys and sub-accounts, and the rules of it.

use crate::Nano;

/// The most entries of a list of models.
pub const MAX_MODELS: usize = 100;
/// The longest entry of a list of models, in characters.
pub const MAX_MODEL: usize = 256;

/// The limits of a key or of a sub-account. One that is missing does not limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most that may be spent in a calendar month.
    pub spend_cap: Option<Nano>,
    /// Requests per minute.
    pub rate_limit_rpm: Option<u32>,
    /// Ids of models, `*` standing for anything.
    pub allowed_models: Option<Vec<String>>,
}

/// What a request says about a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Nothing: it stays as it is.
    #[default]
    Keep,
    /// It is to be removed.
    Clear,
    /// It is to be this.
    Set(T),
}

impl<T> Change<T> {
    /// Whether the setting stays as it is.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The new value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }

    /// The same, owned: what a new thing begins with.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

/// Whether each of `lists` allows `model`.
pub fn allows(lists: &[Vec<String>], model: &str) -> bool {
    lists.iter().all(|list| list.iter().any(|pattern| matches_glob(pattern, model)))
}

/// Whether `text` is like `pattern`, in which `*` stands for any text, slashes included.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let (Some(mut text), (between, end)) = (text.strip_prefix(start), rest.rsplit_once('*').unwrap_or(("", rest)))
    else {
        return false;
    };
    // Each piece may take the first place that fits: that leaves the most for those after it.
    for piece in between.split('*') {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, fits) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/B", "a/b", false),
            ("*", "a/b/c", true),
            ("*", "", true),
            ("a/*", "a/b/c", true),
            ("a/*", "a/", true),
            ("a/*", "ab/c", false),
            ("*/b", "x/a/b", true),
            ("*/b", "x/a/bc", false),
            ("a*c", "abcbc", true),
            ("a*c", "ac", true),
            ("ab*bc", "abc", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("*ab*ab*", "ab", false),
            ("*ab*ab*", "abab", true),
            ("**", "é/ü", true),
            ("é*ü", "éaü", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches_glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn every_list_must_allow_a_model_and_no_list_allows_all() {
        let list = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>();
        assert!(allows(&[], "a/b"));
        assert!(allows(&[list(&["x", "a/*"]), list(&["*/b"])], "a/b"));
        assert!(!allows(&[list(&["a/*"]), list(&["*/b"])], "a/c"));
        assert!(!allows(&[list(&[])], "a/b"));
    }
}
