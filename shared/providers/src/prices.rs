//! Which price a model has: the operator's, the provider's own, or the imported one.
//!
//! Most specific first: a list in the configuration stands for itself alone, so that what it leaves out is not filled in from
//! elsewhere; then what the sandbox asks for its own models; then the imported catalogue, by the model's full id, else by its
//! name without the provider. Limits are looked for one by one in the same order.

use std::collections::HashMap;
use std::sync::Arc;

use aig_domain::catalog::Model;
use aig_domain::price::{Catalog, CatalogEntry, DEFAULT_MARGIN_BP, Price, PriceList};
use arc_swap::ArcSwap;

/// What the configuration says about prices.
#[derive(Clone, Debug)]
pub struct PriceConfig {
    /// What is added to every list price, in basis points: 500 is 5 %.
    pub margin_bp: u32,
    /// List prices and limits by the full id of a model.
    pub models: HashMap<String, CatalogEntry>,
}

impl Default for PriceConfig {
    fn default() -> Self {
        Self { margin_bp: DEFAULT_MARGIN_BP, models: HashMap::new() }
    }
}

/// All prices of a process. The imported ones may be replaced while it runs; readers never wait.
#[derive(Default)]
pub(crate) struct PriceBook {
    config: PriceConfig,
    catalog: ArcSwap<Catalog>,
}

impl PriceBook {
    pub(crate) fn new(config: PriceConfig) -> Self {
        Self { config, catalog: ArcSwap::default() }
    }

    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    /// The same model with its price and limits; what its `price` holds already is what its provider asks.
    pub(crate) fn priced(&self, model: Model) -> Model {
        let own = self.config.models.get(&model.id).copied().unwrap_or_default();
        let mut list = model.price.map_or(own.list, |price| or(own.list, price.list));
        let mut limits = own.limits.or(model.limits);
        let complete = limits.max_input_tokens.is_some() && limits.max_output_tokens.is_some();
        if list.is_empty() || !complete {
            let catalog = self.catalog.load();
            let imported: CatalogEntry = catalog.find(&model.id).copied().unwrap_or_default();
            (list, limits) = (or(list, imported.list), limits.or(imported.limits));
        }
        let price = (!list.is_empty()).then_some(Price { list, margin_bp: self.config.margin_bp });
        Model { price, limits, ..model }
    }
}

fn or(list: PriceList, other: PriceList) -> PriceList {
    if list.is_empty() { other } else { list }
}

#[cfg(test)]
mod tests {
    use aig_domain::catalog::TokenLimits;
    use aig_domain::price::{Pico, Unit};

    use super::*;

    fn entry(unit: Unit, pico: i64, max_output_tokens: Option<u64>) -> CatalogEntry {
        let limits = TokenLimits { max_input_tokens: None, max_output_tokens };
        CatalogEntry { list: PriceList::default().with(unit, Pico(pico)), limits }
    }

    fn model(id: &str, list: PriceList) -> Model {
        Model {
            id: id.into(),
            provider: String::new(),
            modality: None,
            price: (!list.is_empty()).then_some(Price { list, margin_bp: 0 }),
            limits: TokenLimits::default(),
            duration: None,
            deadline: None,
        }
    }

    #[test]
    fn the_most_specific_price_counts() {
        let set = |id: &str, pico| (id.to_owned(), entry(Unit::Input, pico, None));
        let config = PriceConfig { margin_bp: 250, models: HashMap::from([set("p/a", 1), set("sandbox/x", 2)]) };
        let book = PriceBook::new(config);
        let none = PriceList::default();
        let output = |id: &str, list| book.priced(model(id, list)).price.map(|price| price.list);
        let sandbox = none.with(Unit::Mesh, Pico(9));
        assert_eq!(output("p/b", none), None);
        book.set_catalog(Catalog(HashMap::from([
            ("p/a".into(), entry(Unit::Output, 3, Some(10))),
            ("b".into(), entry(Unit::Output, 4, None)),
            ("sandbox/y".into(), entry(Unit::Output, 5, None)),
        ])));
        assert_eq!(output("p/a", none), Some(none.with(Unit::Input, Pico(1))), "the configuration's alone");
        assert_eq!(output("p/b", none), Some(none.with(Unit::Output, Pico(4))), "imported, by its name");
        assert_eq!(output("sandbox/x", sandbox), Some(none.with(Unit::Input, Pico(2))));
        assert_eq!(output("sandbox/y", sandbox), Some(sandbox), "its provider's goes before the import");
        let priced = book.priced(model("p/a", none));
        assert_eq!(priced.price.unwrap().margin_bp, 250);
        assert_eq!(priced.limits.max_output_tokens, Some(10), "limits are filled in one by one");
        book.set_catalog(Catalog::default());
        assert_eq!(output("p/b", none), None);
    }
}
