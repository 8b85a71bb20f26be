//! What an import changes, as a short table for people.

use std::fmt::Write as _;

use aig_domain::price::{Change, Changes, Pico, Unit};

use super::litellm::Read;

/// How many rows of each kind are shown.
const SHOWN: usize = 20;

/// The table and the sums below it.
pub(super) fn text(changes: &Changes, read: &Read) -> String {
    let (replaced, new): (Vec<&Change>, Vec<&Change>) = changes.prices.iter().partition(|change| change.old.is_some());
    let implausible: Vec<(&Change, &str)> = changes.implausible().collect();
    let free = read.catalog.0.values().filter(|entry| entry.list.iter().all(|(_, price)| price.0 == 0)).count();
    let shown = replaced.iter().take(SHOWN).chain(new.iter().take(SHOWN));
    let width = shown.map(|change| change.model.chars().count()).max().unwrap_or_default();
    let mut out = String::new();
    // Writing to a string cannot fail.
    if !changes.prices.is_empty() {
        let _ = writeln!(out, "US cents, per million for tokens");
        let _ = writeln!(out, "{:width$} {:13} {:>12}    {:>12}", "model", "unit", "now", "imported");
    }
    for (kind, rows) in [("replaced", &replaced), ("new", &new)] {
        for change in rows.iter().take(SHOWN) {
            let [old, new] = [change.old, change.new].map(|price| cents(change.unit, price));
            let _ = writeln!(out, "{:width$} {:13} {old:>12} -> {new:>12}", change.model, change.unit.as_str());
        }
        if rows.len() > SHOWN {
            let _ = writeln!(out, "… and {} more that are {kind}", rows.len() - SHOWN);
        }
    }
    let _ = writeln!(
        out,
        "{} prices are new, {} change, {} stay as they are; {} limits change. {} of {} models have no price \
         that can be used, {free} cost nothing.",
        new.len(),
        replaced.len(),
        changes.unchanged,
        changes.limits.len(),
        read.unpriced,
        read.catalog.0.len() + read.unpriced + read.unreadable.len(),
    );
    list(&mut out, "Cannot be read", read.unreadable.iter().map(|(name, reason)| format!("{name}: {reason}")));
    list(
        &mut out,
        "Cannot be meant",
        implausible.iter().map(|(change, reason)| {
            let price = cents(change.unit, change.new);
            format!("{} {}: {price} cents is {reason}", change.model, change.unit.as_str())
        }),
    );
    out
}

fn list(out: &mut String, title: &str, lines: impl ExactSizeIterator<Item = String>) {
    let count = lines.len();
    for (index, line) in lines.enumerate() {
        if index == 0 {
            let _ = writeln!(out, "{title} ({count}):");
        }
        let _ = writeln!(out, "  {line}");
    }
}

fn cents(unit: Unit, price: Option<Pico>) -> String {
    price.map_or_else(|| "none".to_owned(), |price| unit.cents_text(price))
}

#[cfg(test)]
mod tests {
    use aig_domain::price::Catalog;

    use super::*;
    use crate::catalog::litellm;

    #[test]
    fn the_difference_is_shown_and_what_cannot_be_meant_is_named() {
        let read = |text: &str| litellm::read(text).unwrap();
        let first = read(r#"{"a": {"input_cost_per_token": 1.5e-07}, "b": {"output_cost_per_token": 2e-6}, "c": {}}"#);
        let shown = text(&Changes::between(&Catalog::default(), &first.catalog), &first);
        assert!(shown.contains("none ->           15\n"), "{shown}");
        assert!(
            shown.contains("2 prices are new, 0 change, 0 stay as they are; 0 limits change. 1 of 3 models"),
            "{shown}"
        );
        let second = read(r#"{"a": {"input_cost_per_token": 0.15}, "b": {"output_cost_per_token": 2e-6}}"#);
        let shown = text(&Changes::between(&first.catalog, &second.catalog), &second);
        assert!(shown.contains("0 prices are new, 1 change, 1 stay"), "{shown}");
        assert!(
            shown.contains("Cannot be meant (1):\n  a input: 15000000 cents is more than 1000 USD per million"),
            "{shown}"
        );
    }
}
