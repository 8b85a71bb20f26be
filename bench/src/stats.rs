//! Numbers: medians, and how they are written.

use std::time::Duration;

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// The middle one; of an even number the mean of the two in the middle; of none zero.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

/// The smallest and the largest.
pub fn span(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    values.into_iter().fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(value), high.max(value)))
}

/// How many per second.
pub fn rate(count: u64, time: Duration) -> f64 {
    float(count) / time.as_secs_f64().max(1e-9)
}

/// Microseconds for each of `count`.
pub fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / float(count.max(1))
}

/// `12,345`.
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits that matter: `123`, `12.3`, `1.23`.
pub fn short(value: f64) -> String {
    match value {
        large if large >= 999.5 => thousands(large),
        large if large >= 99.95 => format!("{large:.0}"),
        middle if middle >= 9.995 => format!("{middle:.1}"),
        small => format!("{small:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let all = [("3", median([5.0, 1.0, 3.0])), ("2", median([1.0, 3.0])), ("0", median([]))];
        for (expected, found) in all {
            assert_eq!(expected, found.to_string());
        }
        assert_eq!(format!("{:?}", span([2.0, 1.0, 5.0])), "(1.0, 5.0)");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,568"],
            [0.0, 999.4, 999.5, 1_234_567.8].map(thousands).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["0.05", "1.35", "22.7", "318", "1,157"],
            [0.05, 1.351, 22.71, 318.2, 1157.0].map(short).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn shares() {
        assert_eq!(rate(30, Duration::from_secs(3)).to_string(), "10");
        assert_eq!(micros_each(Duration::from_millis(3), 100).to_string(), "30");
    }
}
