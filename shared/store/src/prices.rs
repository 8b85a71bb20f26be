//! Imported list prices and token limits.
//!
//! A price that is replaced keeps its row, with the time of its end: what was valid when can always be told. Only
//! [`Store::import_prices`] writes here, and only whole imports: one transaction, held against every other.

use std::collections::HashMap;

use aig_domain::Millis;
use aig_domain::catalog::TokenLimits;
use aig_domain::price::{Catalog, CatalogEntry, Change, Changes, LimitChange, Pico, Unit};

use crate::db::{Tx, on};
use crate::sql::{Rows, padded, with_blanks};
use crate::{Store, StoreError, dialect};

const VALID: &str = "SELECT model, unit, amount FROM prices WHERE valid_until IS NULL";
const LIMITS: &str = "SELECT model, max_input_tokens, max_output_tokens FROM model_limits";
static CLOSE: Rows = Rows::new(
    "WITH v (model, unit, now) AS (VALUES ",
    &["TEXT", "TEXT", "BIGINT"],
    ") UPDATE prices SET valid_until = v.now FROM v \
     WHERE prices.model = v.model AND prices.unit = v.unit AND prices.valid_until IS NULL",
);
static INSERT: Rows = Rows::new(
    "INSERT INTO prices (model, unit, valid_from, amount, source) SELECT * FROM (VALUES ",
    &["TEXT", "TEXT", "BIGINT", "BIGINT", "TEXT"],
    ") AS v WHERE column1 IS NOT NULL",
);
static SET_LIMITS: Rows = Rows::new(
    "INSERT INTO model_limits (model, max_input_tokens, max_output_tokens, updated_at) SELECT * FROM (VALUES ",
    &["TEXT", "BIGINT", "BIGINT", "BIGINT"],
    ") AS v WHERE column1 IS NOT NULL ON CONFLICT (model) DO UPDATE SET max_input_tokens = excluded.max_input_tokens, \
     max_output_tokens = excluded.max_output_tokens, updated_at = excluded.updated_at",
);

type PriceRow = (String, String, i64);
type LimitRow = (String, Option<i64>, Option<i64>);

impl Store {
    /// All imported prices that are valid now, and the limits of their models.
    pub async fn catalog(&self) -> Result<Catalog, StoreError> {
        let prices: Vec<PriceRow> = on!(self.db.read(), |pool| sqlx::query_as(VALID).fetch_all(pool).await)?;
        let limits: Vec<LimitRow> = on!(self.db.read(), |pool| sqlx::query_as(LIMITS).fetch_all(pool).await)?;
        Ok(assembled(prices, limits))
    }

    /// Makes the prices and limits of `imported` valid from now on, and gives what that changed. A price that is the same
    /// already is left alone; one that an imported model does not have any more ends; models that are not named stay as they
    /// are. `source` says where the prices are from, such as the name of a file.
    ///
    /// # Errors
    /// When the database fails; then nothing has changed.
    pub async fn import_prices(&self, imported: &Catalog, source: &str) -> Result<Changes, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        match import(&mut tx, imported, source, now).await {
            Ok(changes) => {
                tx.commit().await?;
                Ok(changes)
            }
            Err(error) => {
                tx.rollback().await?;
                Err(error.into())
            }
        }
    }
}

async fn import(tx: &mut Tx, imported: &Catalog, source: &str, now: Millis) -> Result<Changes, sqlx::Error> {
    if let Some(lock) = dialect::lock_prices(tx) {
        on!(tx.conn(), |c| sqlx::query(lock).execute(c).await.map(drop))?;
    }
    let prices: Vec<PriceRow> = on!(tx.conn(), |c| sqlx::query_as(VALID).fetch_all(c).await)?;
    let limits: Vec<LimitRow> = on!(tx.conn(), |c| sqlx::query_as(LIMITS).fetch_all(c).await)?;
    let changes = Changes::between(&assembled(prices, limits), imported);
    close(tx, &changes.prices, now).await?;
    insert(tx, &changes.prices, source, now).await?;
    set_limits(tx, &changes.limits, now).await?;
    Ok(changes)
}

async fn close(tx: &mut Tx, changes: &[Change], now: Millis) -> Result<(), sqlx::Error> {
    let replaced: Vec<&Change> = changes.iter().filter(|change| change.old.is_some()).collect();
    for piece in padded(&replaced) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(CLOSE.sql(piece.len()));
            for change in &piece {
                query = query.bind(&change.model).bind(change.unit.as_str()).bind(now.0);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

async fn insert(tx: &mut Tx, changes: &[Change], source: &str, now: Millis) -> Result<(), sqlx::Error> {
    let new: Vec<(&Change, Pico)> = changes.iter().filter_map(|change| Some((change, change.new?))).collect();
    for piece in with_blanks(&new) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT.sql(piece.len()));
            for row in &piece {
                let (change, price) = row.copied().unzip();
                query = query.bind(change.map(|change| change.model.as_str()));
                query = query.bind(change.map(|change| change.unit.as_str())).bind(now.0);
                query = query.bind(price.map(|price| price.0)).bind(source);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

async fn set_limits(tx: &mut Tx, changes: &[LimitChange], now: Millis) -> Result<(), sqlx::Error> {
    for piece in with_blanks(changes) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(SET_LIMITS.sql(piece.len()));
            for row in &piece {
                let limits = row.map(|change| change.limits).unwrap_or_default();
                let [input, output] = [limits.max_input_tokens, limits.max_output_tokens]
                    .map(|limit| limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)));
                query = query.bind(row.map(|change| change.model.as_str())).bind(input).bind(output).bind(now.0);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// The catalogue of these rows. A unit that a newer program wrote is left out.
fn assembled(prices: Vec<PriceRow>, limits: Vec<LimitRow>) -> Catalog {
    let mut models: HashMap<String, CatalogEntry> = HashMap::new();
    for (model, unit, amount) in prices {
        if let Some(unit) = Unit::parse(&unit) {
            let entry = models.entry(model).or_default();
            entry.list = entry.list.with(unit, Pico(amount));
        }
    }
    for (model, input, output) in limits {
        let [max_input_tokens, max_output_tokens] =
            [input, output].map(|limit| limit.and_then(|limit| u64::try_from(limit).ok()));
        models.entry(model).or_default().limits = TokenLimits { max_input_tokens, max_output_tokens };
    }
    Catalog(models)
}
