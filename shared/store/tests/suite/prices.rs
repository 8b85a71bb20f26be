//! Imported prices: what is valid, what was, and that history is never edited.

use std::time::Duration;

use aig_domain::catalog::TokenLimits;
use aig_domain::price::{Catalog, CatalogEntry, Pico, PriceList, Unit};

use crate::support::{TestStore, both};

both!(
    an_import_is_read_back,
    replaced_prices_keep_their_rows,
    what_is_not_named_stays,
    a_large_import_takes_many_statements,
    two_imports_at_once_leave_one_valid_price,
);

fn entry(prices: &[(Unit, i64)], max_output_tokens: Option<u64>) -> CatalogEntry {
    let list = prices.iter().fold(PriceList::default(), |list, (unit, pico)| list.with(*unit, Pico(*pico)));
    CatalogEntry { list, limits: TokenLimits { max_input_tokens: None, max_output_tokens } }
}

fn catalog(entries: &[(&str, CatalogEntry)]) -> Catalog {
    Catalog(entries.iter().map(|(name, entry)| ((*name).to_owned(), *entry)).collect())
}

/// All rows there ever were, as `model unit from-until amount`.
async fn history(t: &TestStore) -> Vec<(String, String, i64, Option<i64>, i64, String)> {
    t.rows("SELECT model, unit, valid_from, valid_until, amount, source FROM prices ORDER BY model, unit, valid_from")
        .await
}

async fn an_import_is_read_back(t: &TestStore) {
    assert_eq!(t.store.catalog().await.unwrap(), Catalog::default());
    let every: Vec<(Unit, i64)> = Unit::ALL.into_iter().zip(0..).collect();
    let imported = catalog(&[("a/b", entry(&every, Some(8))), ("c", entry(&[(Unit::Input, i64::MAX)], None))]);
    let changes = t.store.import_prices(&imported, "file").await.unwrap();
    assert_eq!((changes.prices.len(), changes.limits.len(), changes.unchanged), (9, 1, 0));
    assert_eq!(t.store.catalog().await.unwrap(), imported);
    assert_eq!(t.reopen().await.catalog().await.unwrap(), imported);
}

async fn replaced_prices_keep_their_rows(t: &TestStore) {
    let first = t.now().0;
    let of = |prices: &[(Unit, i64)], limit| catalog(&[("m", entry(prices, limit))]);
    t.store
        .import_prices(&of(&[(Unit::Input, 1), (Unit::Output, 2), (Unit::CachedInput, 3)], Some(8)), "one")
        .await
        .unwrap();
    t.clock.forward(Duration::from_secs(1));
    let second = t.now().0;
    let imported = of(&[(Unit::Input, 1), (Unit::Output, 5)], Some(9));
    let changes = t.store.import_prices(&imported, "two").await.unwrap();
    assert_eq!((changes.prices.len(), changes.unchanged), (2, 1));
    let row = |unit: &str, from, until, amount, source: &str| {
        ("m".to_owned(), unit.to_owned(), from, until, amount, source.to_owned())
    };
    let expected = [
        row("cached_input", first, Some(second), 3, "one"),
        row("input", first, None, 1, "one"),
        row("output", first, Some(second), 2, "one"),
        row("output", second, None, 5, "two"),
    ];
    assert_eq!(history(t).await, expected);
    assert_eq!(t.store.catalog().await.unwrap(), imported);
    t.clock.forward(Duration::from_secs(1));
    let changes = t.store.import_prices(&imported, "three").await.unwrap();
    assert_eq!((changes.prices.len(), changes.limits.len(), changes.unchanged), (0, 0, 2));
    assert_eq!(history(t).await, expected, "what is the same is left alone");
}

async fn what_is_not_named_stays(t: &TestStore) {
    let both = catalog(&[("a", entry(&[(Unit::Input, 1)], Some(1))), ("b", entry(&[(Unit::Input, 2)], None))]);
    t.store.import_prices(&both, "one").await.unwrap();
    t.clock.forward(Duration::from_secs(1));
    t.store.import_prices(&catalog(&[("b", entry(&[(Unit::Input, 3)], Some(2)))]), "two").await.unwrap();
    let expected = catalog(&[("a", entry(&[(Unit::Input, 1)], Some(1))), ("b", entry(&[(Unit::Input, 3)], Some(2)))]);
    assert_eq!(t.store.catalog().await.unwrap(), expected);
}

async fn a_large_import_takes_many_statements(t: &TestStore) {
    let of = |add: i64| {
        let one =
            |n: i64| (format!("p/m{n}"), entry(&[(Unit::Input, n + add), (Unit::Output, n)], u64::try_from(n).ok()));
        Catalog((0..1001).map(one).collect())
    };
    t.store.import_prices(&of(0), "one").await.unwrap();
    t.clock.forward(Duration::from_secs(1));
    let changes = t.store.import_prices(&of(1), "two").await.unwrap();
    assert_eq!((changes.prices.len(), changes.unchanged), (1001, 1001));
    assert_eq!(t.store.catalog().await.unwrap(), of(1));
    assert_eq!(history(t).await.len(), 3003);
}

async fn two_imports_at_once_leave_one_valid_price(t: &TestStore) {
    let other = t.reopen().await;
    let imported = catalog(&[("m", entry(&[(Unit::Input, 1), (Unit::Output, 2)], Some(3)))]);
    let (a, b) = tokio::join!(t.store.import_prices(&imported, "one"), other.import_prices(&imported, "two"));
    assert_eq!(a.unwrap().prices.len() + b.unwrap().prices.len(), 2, "the second finds all of it done");
    assert_eq!(history(t).await.len(), 2);
}
