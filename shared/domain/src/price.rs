//! What work costs: prices by unit, what was used of each, and one exact sum.
//!
//! A price list holds pico-dollars per [`Unit`]; a [`Price`] adds the gateway's margin. [`Price::cost`] is the only place where
//! use becomes money: exact integers throughout, one rounding up to a nano-dollar at the very end, and nothing rather than a
//! wrong number when a price is missing or the sum is more than an amount can be. Tests: `price/tests.rs`.

mod breakdown;
mod catalog;
mod changes;
pub mod decimal;
mod list;
mod used;

use serde::{Deserialize, Serialize};

use crate::Nano;
use crate::catalog::Modality;

pub use breakdown::{Breakdown, Femto, Line};
pub use catalog::{Catalog, CatalogEntry};
pub use changes::{Change, Changes, LimitChange};
pub use list::{Pico, PriceList, Unit};
pub use used::Used;

/// The margin when the configuration sets none, in basis points: 5 %.
pub const DEFAULT_MARGIN_BP: u32 = 500;

/// Femto-dollars in a nano-dollar.
const FEMTO_PER_NANO: i128 = 1_000_000;
/// Basis points of the whole.
const WHOLE_BP: i128 = 10_000;

/// What a customer pays for a model: its list price and the gateway's margin on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// What the provider asks.
    pub list: PriceList,
    /// What the gateway adds, in basis points: 500 is 5 %.
    pub margin_bp: u32,
}

impl Price {
    /// What `used` costs, margin included, rounded up to a nano-dollar once.
    ///
    /// `None` when something was used that has no price, or when the sum is more than an amount can be: such work is refused,
    /// never given away. Two gaps have a meaning: cached input without a price of its own costs what input does, and
    /// a request or an image without one costs nothing. Where there is a price per request, it pays for all the units of the
    /// requests counted in `used` that have no price.
    pub fn cost(&self, used: &Used) -> Option<Nano> {
        let sum = self.parts(used)?.into_iter().try_fold(0i128, |sum, line| sum.checked_add(line.amount.0))?;
        let with_margin = sum.checked_mul(WHOLE_BP + i128::from(self.margin_bp))?;
        let divisor = WHOLE_BP * FEMTO_PER_NANO;
        let up = i128::from(with_margin % divisor != 0);
        i64::try_from(with_margin / divisor + up).ok().map(Nano)
    }

    /// The most that `used` can cost, however much of its input turns out to be cached: what has to be reserved for it. `None`
    /// as for [`Self::cost`].
    pub fn most(&self, used: &Used) -> Option<Nano> {
        // The cost is linear in the cached tokens, so that it is highest at one of the ends.
        let none = self.cost(&Used { cached_tokens: 0, ..*used })?;
        let all = self.cost(&Used { cached_tokens: used.input_tokens, ..*used })?;
        Some(none.max(all))
    }

    /// The sum of [`Self::cost`] unit by unit, as it is shown; `None` exactly when that is.
    pub fn breakdown(&self, used: &Used) -> Option<Breakdown> {
        let total = self.cost(used)?;
        let lines = self.parts(used)?;
        let list = lines.iter().map(|line| line.amount.0).sum();
        let margin = i128::from(total.0) * FEMTO_PER_NANO - list;
        Some(Breakdown { lines, list: Femto(list), margin_bp: self.margin_bp, margin: Femto(margin), total })
    }

    /// The lines of all units that were used and cost something by themselves.
    fn parts(&self, used: &Used) -> Option<Vec<Line>> {
        let flat = used.requests > 0 && self.list.get(Unit::Request).is_some();
        let mut lines = Vec::new();
        for unit in Unit::ALL {
            let thousandths = used.thousandths(unit);
            if thousandths == 0 {
                continue;
            }
            let price = match (self.list.get(unit), unit) {
                (Some(price), _) => price,
                (None, Unit::CachedInput) => match self.list.get(Unit::Input) {
                    Some(price) => price,
                    None if flat => continue,
                    None => return None,
                },
                (None, Unit::Request | Unit::Image) => continue,
                (None, _) if flat => continue,
                (None, _) => return None,
            };
            lines.push(Line::new(unit, thousandths, price)?);
        }
        Some(lines)
    }

    /// Whether chat calls can be charged: input and output have prices, or the request has.
    pub fn prices_chat(&self) -> bool {
        let has = |unit| self.list.get(unit).is_some();
        has(Unit::Input) && has(Unit::Output) || has(Unit::Request)
    }

    /// Whether work of `modality` can be charged: its unit has a price, or the request has.
    pub fn prices_job(&self, modality: Modality) -> bool {
        let unit = match modality {
            Modality::Text => return self.prices_chat(),
            Modality::Video => Unit::VideoSecond,
            Modality::Music => Unit::MusicSecond,
            Modality::ThreeD => Unit::Mesh,
        };
        self.list.get(unit).or(self.list.get(Unit::Request)).is_some()
    }
}

#[cfg(test)]
mod tests;
