//! What an import changes, and which of it cannot be meant.

use super::{Catalog, Pico, Unit};
use crate::catalog::TokenLimits;

/// The most for one token: 1000 USD per million. Above it, a price per million was taken for one per token.
const MOST_PER_TOKEN: Pico = Pico(1_000_000_000);
/// The most for one of anything else: 1000 USD.
const MOST_PER_UNIT: Pico = Pico(1_000_000_000_000_000);
/// How many times dearer or cheaper a price may become.
const LARGEST_JUMP: i128 = 100;

/// A price that the import brings, replaces or takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The model, by the catalogue's name.
    pub model: String,
    /// What the price is for.
    pub unit: Unit,
    /// The price that is valid now.
    pub old: Option<Pico>,
    /// The price from now on.
    pub new: Option<Pico>,
}

impl Change {
    /// Why this cannot be meant, if so. A price that rises from nothing has nothing to be measured by.
    pub fn implausible(&self) -> Option<&'static str> {
        let new = self.new?;
        let most = if self.unit.is_token() { MOST_PER_TOKEN } else { MOST_PER_UNIT };
        if new > most {
            return Some(if self.unit.is_token() {
                "more than 1000 USD per million tokens; was it given per million instead of per token?"
            } else {
                "more than 1000 USD"
            });
        }
        let (was, is) = (i128::from(self.old?.0), i128::from(new.0));
        if was > 0 && is > was * LARGEST_JUMP {
            Some("more than 100 times what it is now")
        } else if is * LARGEST_JUMP < was {
            Some("less than a hundredth of what it is now")
        } else {
            None
        }
    }
}

/// Token limits that the import brings or replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitChange {
    /// The model, by the catalogue's name.
    pub model: String,
    /// Its limits from now on.
    pub limits: TokenLimits,
}

/// The difference between what is valid and what is imported. Models that the import does not name stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Prices, by model and unit.
    pub prices: Vec<Change>,
    /// Limits, by model.
    pub limits: Vec<LimitChange>,
    /// How many prices of the import are valid already.
    pub unchanged: usize,
}

impl Changes {
    /// What has to change in `valid` for the models of `imported`.
    pub fn between(valid: &Catalog, imported: &Catalog) -> Self {
        let mut changes = Self::default();
        for (model, new) in &imported.0 {
            let old = valid.0.get(model).copied().unwrap_or_default();
            for unit in Unit::ALL {
                let (old, new) = (old.list.get(unit), new.list.get(unit));
                if old != new {
                    changes.prices.push(Change { model: model.clone(), unit, old, new });
                } else if new.is_some() {
                    changes.unchanged += 1;
                }
            }
            if old.limits != new.limits {
                changes.limits.push(LimitChange { model: model.clone(), limits: new.limits });
            }
        }
        changes.prices.sort_by(|a, b| (&a.model, a.unit).cmp(&(&b.model, b.unit)));
        changes.limits.sort_by(|a, b| a.model.cmp(&b.model));
        changes
    }

    /// The changes that cannot be meant, each with the reason.
    pub fn implausible(&self) -> impl Iterator<Item = (&Change, &'static str)> {
        self.prices.iter().filter_map(|change| Some((change, change.implausible()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{CatalogEntry, PriceList};

    fn change(unit: Unit, old: Option<i64>, new: Option<i64>) -> Change {
        Change { model: "m".into(), unit, old: old.map(Pico), new: new.map(Pico) }
    }

    #[test]
    fn jumps_and_prices_per_million_are_not_meant() {
        for (unit, old, new, plausible) in [
            (Unit::Input, Some(100), Some(10_000), true),
            (Unit::Input, Some(100), Some(10_001), false),
            (Unit::Input, Some(10_000), Some(100), true),
            (Unit::Input, Some(10_000), Some(99), false),
            (Unit::Input, Some(1), Some(0), false),
            (Unit::Input, Some(0), Some(5_000_000), true),
            (Unit::Input, None, Some(1_000_000_000), true),
            (Unit::Output, None, Some(1_000_000_001), false),
            (Unit::VideoSecond, None, Some(1_000_000_001), true),
            (Unit::Mesh, Some(1_000_000_000_000_000), Some(1_000_000_000_000_001), false),
            (Unit::Input, Some(i64::MAX), None, true),
        ] {
            assert_eq!(change(unit, old, new).implausible().is_none(), plausible, "{unit:?} {old:?} {new:?}");
        }
    }

    #[test]
    fn only_models_that_are_named_change() {
        let entry = |input: i64, cached: Option<i64>, max| {
            let list = PriceList::default().with(Unit::Input, Pico(input));
            let list = cached.map_or(list, |cached| list.with(Unit::CachedInput, Pico(cached)));
            CatalogEntry { list, limits: TokenLimits { max_input_tokens: max, max_output_tokens: None } }
        };
        let catalog = |entries: &[(&str, CatalogEntry)]| {
            Catalog(entries.iter().map(|(name, entry)| ((*name).to_owned(), *entry)).collect())
        };
        let valid =
            catalog(&[("gone", entry(1, None, None)), ("m", entry(2, Some(1), Some(8))), ("n", entry(3, None, None))]);
        let imported =
            catalog(&[("m", entry(2, None, Some(9))), ("n", entry(4, None, None)), ("o", entry(5, None, None))]);
        let changes = Changes::between(&valid, &imported);
        let seen: Vec<_> = changes.prices.iter().map(|c| (c.model.as_str(), c.old, c.new)).collect();
        let expected = [("m", Some(Pico(1)), None), ("n", Some(Pico(3)), Some(Pico(4))), ("o", None, Some(Pico(5)))];
        assert_eq!(seen, expected);
        assert_eq!((changes.unchanged, changes.limits.len()), (1, 1));
        assert_eq!(Changes::between(&imported, &imported), Changes { unchanged: 3, ..Changes::default() });
    }
}
