//! Imported list prices, by the names that the import gave its models.

use std::collections::HashMap;

use super::PriceList;
use crate::catalog::TokenLimits;

/// What an import knows about a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Its list prices.
    pub list: PriceList,
    /// How many tokens a call may take.
    pub limits: TokenLimits,
}

/// All imported prices that are valid now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog(pub HashMap<String, CatalogEntry>);

impl Catalog {
    /// What is known about the model `id`, our `provider/name`: the entry of that name, else the entry `name`.
    ///
    /// A catalogue calls one model `openai/gpt-4o` and the other plain `gpt-4o`; an operator calls the provider what they like.
    pub fn find(&self, id: &str) -> Option<&CatalogEntry> {
        self.0.get(id).or_else(|| self.0.get(id.split_once('/')?.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Pico, Unit};

    #[test]
    fn the_full_id_goes_before_the_name_alone() {
        let entry =
            |pico| CatalogEntry { list: PriceList::default().with(Unit::Input, Pico(pico)), ..Default::default() };
        let named = [("openai/gpt-4o", 1), ("gpt-4o", 2), ("org/m", 3)];
        let catalog = Catalog(named.into_iter().map(|(name, pico)| (name.to_owned(), entry(pico))).collect());
        for (id, pico) in [("openai/gpt-4o", 1), ("my-openai/gpt-4o", 2), ("up/org/m", 3), ("org/m", 3)] {
            assert_eq!(catalog.find(id), Some(&entry(pico)), "{id}");
        }
        for id in ["up/m", "up/gpt-4", "", "up/up/gpt-4o"] {
            assert_eq!(catalog.find(id), None, "{id}");
        }
    }
}
