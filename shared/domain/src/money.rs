//! Money: integer nano-dollars. No float ever holds an amount.

use serde::{Deserialize, Serialize};

/// An amount in nano-USD (10⁻⁹ dollar). One cent is 10,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nano(pub i64);

impl Nano {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that one request may cost: ten million dollars. So no sum of a month can be more than an amount can be.
    pub const MOST_PER_REQUEST: Self = Self(10_000_000_000_000_000);
    /// One US cent.
    pub const CENT: Self = Self(10_000_000);

    /// The sum; saturates at the largest amount there is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The amount in dollars for the wire.
    pub fn usd_json(self) -> serde_json::Number {
        #[expect(clippy::cast_precision_loss, reason = "display only: the wire wants a JSON number")]
        let dollars = self.0 as f64 / 1e9;
        serde_json::Number::from_f64(dollars).unwrap_or_else(|| 0.into())
    }

    /// The amount in cents for the wire: a whole number where it is one, else up to seven decimals.
    pub fn cents_json(self) -> serde_json::Number {
        if self.0 % Self::CENT.0 == 0 {
            return (self.0 / Self::CENT.0).into();
        }
        #[expect(clippy::cast_precision_loss, reason = "display only: the wire wants a JSON number")]
        let cents = self.0 as f64 / Self::CENT.0 as f64;
        serde_json::Number::from_f64(cents).unwrap_or_else(|| 0.into())
    }

    /// The amount that a JSON number of cents means, such as `12`, `0.4389` or `1e-7`, read digit by digit. `None` when it is
    /// no such number, negative, finer than seven decimals, or more than an amount can be.
    pub fn parse_cents(number: &str) -> Option<Self> {
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_end_matches('0');
        let dropped = i32::try_from(digits.len() - significant.len()).ok()?;
        let significant = significant.trim_start_matches('0');
        if significant.is_empty() {
            return Some(Self::ZERO);
        }
        let fraction = i32::try_from(fraction.len()).ok()?;
        // A cent has seven decimals of nano-USD.
        let zeros = exponent.parse::<i32>().ok()?.checked_add(7 + dropped - fraction)?;
        let factor = 10_i64.checked_pow(u32::try_from(zeros).ok()?)?;
        significant.parse::<i64>().ok()?.checked_mul(factor).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_integer() {
        assert_eq!(Nano(Nano::CENT.0 * 3).cents_json().to_string(), "3");
        assert_eq!(Nano(4_389_000).cents_json().to_string(), "0.4389");
        assert_eq!(Nano::ZERO.cents_json().to_string(), "0");
    }

    #[test]
    fn cents_are_read_digit_by_digit() {
        for (text, nano) in [
            ("0", 0),
            ("0.00000000", 0),
            ("0e999", 0),
            ("5", 50_000_000),
            ("5.0", 50_000_000),
            ("0.1", 1_000_000),
            ("0.4389", 4_389_000),
            ("0.0000001", 1),
            ("0.00000010", 1),
            ("1e-7", 1),
            ("1.5E+3", 15_000_000_000),
            ("100000000000000000000e-20", 10_000_000),
            ("922337203685.4775807", i64::MAX),
        ] {
            assert_eq!(Nano::parse_cents(text), Some(Nano(nano)), "{text}");
        }
        for bad in ["", "-1", "-0", "+1", ".", "1e", "1.5.5", "x", "1_0", "0.00000001", "1e-8", "922337203685.4775808"]
        {
            assert_eq!(Nano::parse_cents(bad), None, "{bad}");
        }
        for huge in ["1e99", "1e99999999999", "9223372036854775807", &"9".repeat(65)] {
            assert_eq!(Nano::parse_cents(huge), None, "{huge}");
        }
    }
}
