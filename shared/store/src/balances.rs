//! What is spent, held and uncertain in each scope and period: read under lock, and changed by sums.
//!
//! Rows appear with the first use, so that a new month needs nobody to begin it. All writers lock them in one order; a
//! deadlock that happens all the same is rerun by the lane.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aig_domain::caps::{Balance, Balances, Payer, ScopeKind};
use aig_domain::{Month, Nano};

use crate::db::{Tx, on};
use crate::sql::{Rows, padded, with_blanks};
use crate::{Store, StoreError};

/// What changes in a scope.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) spent: i64,
    pub(crate) held: i64,
    pub(crate) uncertain: i64,
    pub(crate) requests: i64,
}

/// What a batch changes, summed up by scope and period, in the order in which rows are locked.
#[derive(Default)]
pub(crate) struct Changes(BTreeMap<(String, i64), Row>);

struct Row {
    kind: ScopeKind,
    account_id: String,
    change: Change,
}

impl Changes {
    /// Adds `change` to every scope of `payer`.
    pub(crate) fn add(&mut self, payer: &Payer, period: i64, change: Change) {
        for scope in payer.scopes() {
            let row = self.0.entry((scope.id, period)).or_insert_with(|| Row {
                kind: scope.kind,
                account_id: payer.account_id.clone(),
                change: Change::default(),
            });
            let sum = &mut row.change;
            sum.spent = sum.spent.saturating_add(change.spent);
            sum.held = sum.held.saturating_add(change.held);
            sum.uncertain = sum.uncertain.saturating_add(change.uncertain);
            sum.requests += change.requests;
        }
    }
}

static UPDATE: Rows = Rows::new(
    "WITH v (scope, period, spent, held, uncertain, requests) AS (VALUES ",
    &["TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT"],
    ") UPDATE budget_periods SET spent = budget_periods.spent + v.spent, held = budget_periods.held + v.held, \
     uncertain = budget_periods.uncertain + v.uncertain, requests = budget_periods.requests + v.requests \
     FROM v WHERE budget_periods.scope = v.scope AND budget_periods.period = v.period \
     RETURNING budget_periods.scope, budget_periods.period",
);

// The values of a row that is not there yet are all positive: what is taken back was added before.
static INSERT: Rows = Rows::new(
    "INSERT INTO budget_periods (scope, period, kind, account_id, spent, held, uncertain, requests) \
     SELECT column1, column2, column3, column4, column5, column6, column7, column8 FROM (VALUES ",
    &["TEXT", "BIGINT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT"],
    ") AS v WHERE column1 IS NOT NULL ON CONFLICT (scope, period) DO UPDATE SET \
     spent = budget_periods.spent + excluded.spent, held = budget_periods.held + excluded.held, \
     uncertain = budget_periods.uncertain + excluded.uncertain, requests = budget_periods.requests + excluded.requests",
);

/// Writes `changes`.
pub(crate) async fn apply(tx: &mut Tx, changes: &Changes) -> Result<(), StoreError> {
    let all: Vec<(&(String, i64), &Row)> = changes.0.iter().collect();
    let mut known: BTreeSet<(String, i64)> = BTreeSet::new();
    for piece in padded(&all) {
        let rows: Vec<(String, i64)> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(UPDATE.sql(piece.len()));
            for ((scope, period), Row { change, .. }) in &piece {
                query = query.bind(scope).bind(period).bind(change.spent).bind(change.held);
                query = query.bind(change.uncertain).bind(change.requests);
            }
            query.fetch_all(c).await
        })?;
        known.extend(rows);
    }
    let new: Vec<_> = all.into_iter().filter(|(key, _)| !known.contains(*key)).collect();
    insert(tx, &new).await
}

async fn insert(tx: &mut Tx, new: &[(&(String, i64), &Row)]) -> Result<(), StoreError> {
    for piece in with_blanks(new) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT.sql(piece.len()));
            for row in piece {
                let (key, row) = row.map_or((None, None), |(key, row)| (Some(*key), Some(*row)));
                let change = row.map(|row| row.change);
                query = query
                    .bind(key.map(|(scope, _)| scope))
                    .bind(key.map(|(_, period)| period))
                    .bind(row.map(|row| row.kind.as_str()))
                    .bind(row.map(|row| &row.account_id))
                    .bind(change.map(|change| change.spent))
                    .bind(change.map(|change| change.held))
                    .bind(change.map(|change| change.uncertain))
                    .bind(change.map(|change| change.requests));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

const LOCK_HEAD: &str =
    "SELECT scope, period, spent, held, uncertain FROM budget_periods WHERE (scope, period) IN (VALUES ";
static READ: Rows = Rows::new(LOCK_HEAD, &["TEXT", "BIGINT"], ") ORDER BY scope, period");
static LOCK: Rows = Rows::new(LOCK_HEAD, &["TEXT", "BIGINT"], ") ORDER BY scope, period FOR UPDATE");
static CAPS: Rows = Rows::new("SELECT scope, cap FROM caps WHERE scope IN (", &["TEXT"], ")");

/// Reads how the scopes of `payers` stand and keeps them locked until the transaction ends, rows that were not there included:
/// of two first requests, one waits for the other. The caps are read after that, as they are then.
pub(crate) async fn lock(tx: &mut Tx, payers: &[(&Payer, Month)]) -> Result<HashMap<Month, Balances>, StoreError> {
    let mut wanted: BTreeMap<(String, i64), (Month, Row)> = BTreeMap::new();
    for (payer, month) in payers {
        for scope in payer.scopes() {
            let row = Row { kind: scope.kind, account_id: payer.account_id.clone(), change: Change::default() };
            wanted.entry((scope.id, month.number())).or_insert((*month, row));
        }
    }
    let keys: Vec<&(String, i64)> = wanted.keys().collect();
    let mut found = read_locked(tx, &keys).await?;
    let missing: Vec<&(String, i64)> = keys.iter().filter(|key| !found.contains_key(**key)).copied().collect();
    if !missing.is_empty() {
        let rows: Vec<_> = missing.iter().filter_map(|key| wanted.get(*key).map(|(_, row)| (*key, row))).collect();
        insert(tx, &rows).await?;
        found.extend(read_locked(tx, &missing).await?);
    }
    let caps = caps(tx, keys.iter().map(|(scope, _)| scope.as_str())).await?;
    let mut balances: HashMap<Month, Balances> = HashMap::new();
    for (key, mut balance) in found {
        let Some((month, _)) = wanted.get(&key) else { continue };
        balance.cap = caps.get(&key.0).copied();
        balances.entry(*month).or_default().insert(key.0, balance);
    }
    Ok(balances)
}

async fn read_locked(tx: &mut Tx, keys: &[&(String, i64)]) -> Result<HashMap<(String, i64), Balance>, StoreError> {
    // SQLite's BEGIN IMMEDIATE already holds the only write lock.
    let statement = if matches!(tx, Tx::Sqlite(_)) { &READ } else { &LOCK };
    let mut found = HashMap::with_capacity(keys.len());
    for piece in padded(keys) {
        let rows: Vec<(String, i64, i64, i64, i64)> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(statement.sql(piece.len()));
            for (scope, period) in piece {
                query = query.bind(scope).bind(period);
            }
            query.fetch_all(c).await
        })?;
        found.extend(rows.into_iter().map(|(scope, period, spent, held, uncertain)| {
            let balance = Balance { cap: None, spent: Nano(spent), held: Nano(held), uncertain: Nano(uncertain) };
            ((scope, period), balance)
        }));
    }
    Ok(found)
}

async fn caps<'a>(tx: &mut Tx, scopes: impl Iterator<Item = &'a str>) -> Result<HashMap<String, Nano>, StoreError> {
    let scopes: Vec<&str> = scopes.collect::<BTreeSet<_>>().into_iter().collect();
    let mut caps = HashMap::new();
    for piece in padded(&scopes) {
        let rows: Vec<(String, i64)> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(CAPS.sql(piece.len()));
            for scope in piece {
                query = query.bind(*scope);
            }
            query.fetch_all(c).await
        })?;
        caps.extend(rows.into_iter().map(|(scope, cap)| (scope, Nano(cap))));
    }
    Ok(caps)
}

const STANDS: &str = "SELECT spent, held, uncertain FROM budget_periods WHERE scope = $1 AND period = $2";
const CAP: &str = "SELECT cap FROM caps WHERE scope = $1";

impl Store {
    /// How a scope stands in `month`.
    pub async fn balance(&self, scope: &str, month: Month) -> Result<Balance, StoreError> {
        let row: Option<(i64, i64, i64)> = on!(self.db.read(), |pool| {
            sqlx::query_as(STANDS).bind(scope).bind(month.number()).fetch_optional(pool).await
        })?;
        let cap: Option<i64> =
            on!(self.db.read(), |pool| sqlx::query_scalar(CAP).bind(scope).fetch_optional(pool).await)?;
        let (spent, held, uncertain) = row.unwrap_or_default();
        Ok(Balance { cap: cap.map(Nano), spent: Nano(spent), held: Nano(held), uncertain: Nano(uncertain) })
    }
}
