//! The part of a file that a request asks for (RFC 9110 §14): one byte range, or all of it.
//!
//! A range in another unit, a malformed one, and several at once are ignored, as the RFC allows: the client gets the
//! whole file. Tests at the end.

use std::ops::Range;

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// 200 with all of it.
    Whole,
    /// 206 with these bytes; never empty.
    Bytes(Range<u64>),
    /// 416: none of the bytes exist.
    Unsatisfiable,
}

/// A range as it was written.
enum Asked {
    /// `<first>-<last>`, the last one included.
    Between(u64, u64),
    /// `<first>-`
    From(u64),
    /// `-<length>`
    Suffix(u64),
}

/// Reads a `Range` header for a file of `len` bytes.
pub fn part(header: Option<&str>, len: u64) -> Part {
    let bytes = match header.and_then(parse) {
        None => return Part::Whole,
        Some(Asked::Between(first, last)) => first..len.min(last.saturating_add(1)),
        Some(Asked::From(first)) => first..len,
        Some(Asked::Suffix(suffix)) => len.saturating_sub(suffix)..len,
    };
    if bytes.is_empty() { Part::Unsatisfiable } else { Part::Bytes(bytes) }
}

fn parse(header: &str) -> Option<Asked> {
    let (unit, spec) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match spec.trim().split_once('-')? {
        ("", suffix) => Some(Asked::Suffix(number(suffix)?)),
        (first, "") => Some(Asked::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::Between(first, last))
        }
    }
}

/// Digits only; a number beyond `u64` is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_in_each_of_its_forms() {
        for (header, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=2-5", 2..6),
            ("bytes=2-", 2..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("bytes=9-99999999999999999999999", 9..10),
            ("Bytes=0-9", 0..10),
        ] {
            assert_eq!(part(Some(header), 10), Part::Bytes(expected), "{header}");
        }
    }

    #[test]
    fn what_lies_outside_is_refused() {
        for (header, len) in
            [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=-1", 0), ("bytes=0-0", 0)]
        {
            assert_eq!(part(Some(header), len), Part::Unsatisfiable, "{header}");
        }
    }

    #[test]
    fn what_is_malformed_or_several_is_ignored() {
        for header in
            ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=0-1,4-5", "lines=0-1", "bytes=+1-2"]
        {
            assert_eq!(part(Some(header), 10), Part::Whole, "{header}");
        }
        assert_eq!(part(None, 10), Part::Whole);
    }
}
