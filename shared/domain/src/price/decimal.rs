//! Decimal text to integers and back, without a float in between.

/// Why a number is no price. Made to follow the name of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not digits with at most one point, and perhaps an exponent.
    #[error("is not a decimal number")]
    NotANumber,
    /// Below zero.
    #[error("is below zero")]
    Negative,
    /// It has more decimal places than can be kept.
    #[error("has more decimal places than can be kept")]
    TooFine,
    /// It does not fit.
    #[error("is too large")]
    TooLarge,
}

/// The number that `text` writes (`15`, `0.375`, `1.5e-07`) times 10^`places`, exactly.
///
/// # Errors
/// When it is not a whole number of at least 0 that fits.
pub fn exact(text: &str, places: u32) -> Result<i64, DecimalError> {
    match scaled(text, places)? {
        (number, false) => Ok(number),
        (_, true) => Err(DecimalError::TooFine),
    }
}

/// The same, rounded to the nearest whole number where it is none: what a float of somebody else's file left behind, such as
/// `8.000000000000001e-07`. What is above zero stays so.
///
/// # Errors
/// When it is not a number of at least 0 that fits.
pub fn nearest(text: &str, places: u32) -> Result<i64, DecimalError> {
    let (floor, more) = scaled(text, places)?;
    if !more {
        return Ok(floor);
    }
    // One more place says on which side of the half it lies. A number too large for that has no place to round.
    let tenths = scaled(text, places + 1).map_or(0, |(tenths, _)| tenths % 10);
    let rounded = floor.saturating_add(i64::from(tenths >= 5));
    Ok(rounded.max(1))
}

/// `text` times 10^`places`, cut off after the point, and whether something was.
fn scaled(text: &str, places: u32) -> Result<(i64, bool), DecimalError> {
    let (positive, text) = match text.strip_prefix('-') {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    let point_is_fine = !whole.is_empty() && (!fraction.is_empty() || !mantissa.contains('.'));
    let exponent_digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !point_is_fine || !are_digits(&digits) || !are_digits(exponent_digits) {
        return Err(DecimalError::NotANumber);
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok((0, false));
    }
    if !positive {
        return Err(DecimalError::Negative);
    }
    let limit = i64::from(i32::MAX);
    let exponent = exponent.parse().unwrap_or(if exponent.starts_with('-') { -limit } else { limit });
    let fraction = i64::try_from(fraction.len()).unwrap_or(limit);
    let zeros = exponent.clamp(-limit, limit) + i64::from(places) - fraction;
    let Ok(zeros) = usize::try_from(zeros) else {
        let cut = usize::try_from(-zeros).unwrap_or(usize::MAX);
        let (kept, lost) = digits.split_at(digits.len().saturating_sub(cut));
        let number = if kept.is_empty() { Ok(0) } else { kept.parse().map_err(|_| DecimalError::TooLarge) };
        return Ok((number?, lost.bytes().any(|byte| byte != b'0')));
    };
    let ten_to = u32::try_from(zeros).ok().and_then(|zeros| 10i64.checked_pow(zeros));
    let number = digits.parse::<i64>().ok().zip(ten_to).and_then(|(digits, ten_to)| digits.checked_mul(ten_to));
    number.map(|number| (number, false)).ok_or(DecimalError::TooLarge)
}

/// `value` divided by 10^`places`, with all its digits and no more.
pub fn text(value: impl Into<i128>, places: u32) -> String {
    let value: i128 = value.into();
    let width = places as usize;
    let digits = format!("{:0>1$}", value.unsigned_abs(), width + 1);
    let (whole, fraction) = digits.split_at(digits.len() - width);
    let fraction = fraction.trim_end_matches('0');
    let sign = if value < 0 { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// The same as a JSON number: a whole one where it is one, else the float closest to it. For display only.
pub fn json(value: i128, places: u32) -> serde_json::Number {
    let text = text(value, places);
    let whole = text.parse::<i64>().ok().map(Into::into);
    let close = || text.parse().ok().and_then(serde_json::Number::from_f64);
    whole.or_else(close).unwrap_or_else(|| 0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_number_it_writes() {
        for (text, places, number) in [
            ("15", 4, 150_000),
            ("0.375", 4, 3750),
            ("1.5e-07", 12, 150_000),
            ("1.5E-7", 12, 150_000),
            ("2e3", 0, 2000),
            ("+1.0", 0, 1),
            ("0.00", 0, 0),
            ("-0", 0, 0),
            ("0e999999999999", 0, 0),
            ("9223372036854775807", 0, i64::MAX),
            ("000012.500", 1, 125),
            ("1000e-3", 0, 1),
        ] {
            assert_eq!(exact(text, places), Ok(number), "{text}");
            assert_eq!(nearest(text, places), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for (text, error) in [
            ("", DecimalError::NotANumber),
            (".", DecimalError::NotANumber),
            (".5", DecimalError::NotANumber),
            ("5.", DecimalError::NotANumber),
            ("1,5", DecimalError::NotANumber),
            ("1e", DecimalError::NotANumber),
            ("1e1.5", DecimalError::NotANumber),
            ("--1", DecimalError::NotANumber),
            ("inf", DecimalError::NotANumber),
            ("nan", DecimalError::NotANumber),
            ("0x10", DecimalError::NotANumber),
            ("1_000", DecimalError::NotANumber),
            ("-1", DecimalError::Negative),
            ("0.00001", DecimalError::TooFine),
            ("1e-999999999999", DecimalError::TooFine),
            ("1e18", DecimalError::TooLarge),
            ("1e999999999999", DecimalError::TooLarge),
            ("99999999999999999999", DecimalError::TooLarge),
        ] {
            assert_eq!(exact(text, 4), Err(error), "{text}");
        }
    }

    #[test]
    fn what_a_float_left_behind_is_rounded() {
        for (text, number) in [
            ("8.000000000000001e-07", 800_000),
            ("9.499999999999999E-7", 950_000),
            ("0.0000029999900000000002", 2_999_990),
            ("1.419531255E-7", 141_953),
            ("1e-13", 1),
            ("1e-40", 1),
        ] {
            assert_eq!(nearest(text, 12), Ok(number), "{text}");
        }
    }

    #[test]
    fn numbers_become_the_text_that_writes_them() {
        for (value, places, expected) in [
            (0i64, 4, "0"),
            (150_000, 4, "15"),
            (3750, 4, "0.375"),
            (5, 0, "5"),
            (-125, 1, "-12.5"),
            (1, 13, "0.0000000000001"),
        ] {
            assert_eq!(text(value, places), expected);
        }
        assert_eq!(json(4389, 4).to_string(), "0.4389");
        assert_eq!(json(1_000_000, 4).to_string(), "100");
    }

    proptest::proptest! {
        #[test]
        fn text_and_back_is_the_same(value in 0..=i64::MAX, places in 0u32..14) {
            assert_eq!(exact(&text(value, places), places), Ok(value));
        }
    }
}
