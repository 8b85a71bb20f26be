//! Money: integer nano-dollars. No float ever holds an amount.

use serde::{Deserialize, Serialize};

/// An amount in nano-USD (10⁻⁹ dollar). One cent is 10,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nano(pub i64);

impl Nano {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One US cent.
    pub const CENT: Self = Self(10_000_000);

    /// The sum; saturates at the largest amount there is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// That many cents; `None` when it is more than an amount can be.
    pub fn from_cents(cents: i64) -> Option<Self> {
        cents.checked_mul(Self::CENT.0).map(Self)
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
}
