//! How a cost came about, for whoever pays it.

use super::{Pico, Unit, decimal};
use crate::Nano;

/// An exact amount in femto-USD (10⁻¹⁵ dollar): a thousandth of a unit at a pico-dollar each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Femto(pub i128);

impl Femto {
    /// The amount in cents for the wire: a whole number where it is one.
    pub fn cents_json(self) -> serde_json::Number {
        decimal::json(self.0, 13)
    }
}

/// What one unit added to the list cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The unit.
    pub unit: Unit,
    /// How much of it, in thousandths: 1500 is a second and a half, 2000 are two tokens.
    pub thousandths: u128,
    /// The list price of one.
    pub price: Pico,
    /// The two multiplied, exactly.
    pub amount: Femto,
}

impl Line {
    /// `None` when the price is below zero or the product is too large.
    pub(super) fn new(unit: Unit, thousandths: u128, price: Pico) -> Option<Self> {
        let each = u64::try_from(price.0).ok()?;
        let amount = i128::try_from(thousandths).ok()?.checked_mul(i128::from(each))?;
        Some(Self { unit, thousandths, price, amount: Femto(amount) })
    }

    /// How much was used, for the wire: tokens, seconds, meshes. A whole number where it is one.
    pub fn quantity_json(&self) -> serde_json::Number {
        decimal::json(i128::try_from(self.thousandths).unwrap_or(i128::MAX), 3)
    }
}

/// A cost in its parts: `list + margin = total`, to the last digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breakdown {
    /// One for each unit that was used and has a price of its own, in the order of [`Unit::ALL`].
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub list: Femto,
    /// The gateway's margin in basis points.
    pub margin_bp: u32,
    /// What it comes to, the rounding up of the total included.
    pub margin: Femto,
    /// What was charged.
    pub total: Nano,
}
