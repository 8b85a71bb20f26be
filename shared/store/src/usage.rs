//! Sums of usage: a month by tag or by sub-account, and a sub-account's last days.
//!
//! An account's month is read from its budget periods, which are exact and kept. What a sub-account used by tag, model or day
//! is summed up from its usage rows: those are kept for 90 days and do not know what was given back later.

use aig_domain::{Millis, Month, Nano};
use sqlx::FromRow;

use crate::db::on;
use crate::{Store, StoreError};

/// The most lines of a list.
const MOST: usize = 1000;
const MOST_AND_ONE: i64 = 1001;
const DAY_MS: i64 = 86_400_000;

/// What one tag or sub-account used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageLine {
    /// The tag, or the sub-account's id; `None` for what carries no tag.
    pub id: Option<String>,
    /// The sub-account's name.
    pub name: Option<String>,
    /// How many requests were charged.
    pub requests: i64,
    /// What they cost.
    pub cost: Nano,
    /// The cap, as it is now.
    pub cap: Option<Nano>,
}

/// A list, most expensive first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageLines {
    /// At most 1000.
    pub lines: Vec<UsageLine>,
    /// Whether there are more.
    pub has_more: bool,
}

impl UsageLines {
    fn of(mut lines: Vec<UsageLine>, has_more: bool) -> Self {
        lines.sort_by_key(|line| std::cmp::Reverse((line.cost, line.requests)));
        let has_more = has_more || lines.len() > MOST;
        lines.truncate(MOST);
        Self { lines, has_more }
    }
}

/// What some requests used together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Sums {
    /// How many were charged.
    pub requests: i64,
    /// What they cost, in nano-USD.
    pub cost: i64,
    /// Tokens read.
    pub input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
}

/// What one model was used for.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ModelUsage {
    /// The model's full id.
    pub model: String,
    /// Together.
    #[sqlx(flatten)]
    pub sums: Sums,
}

/// What was used on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayUsage {
    /// When the day begins, UTC.
    pub begins: Millis,
    /// Together.
    pub sums: Sums,
}

/// What a sub-account used in some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubAccountUsage {
    /// The models, at most 1000, most expensive first.
    pub by_model: Vec<ModelUsage>,
    /// The days on which something was used, oldest first.
    pub by_day: Vec<DayUsage>,
}

impl SubAccountUsage {
    /// All days together.
    pub fn total(&self) -> Sums {
        self.by_day.iter().fold(Sums::default(), |sum, DayUsage { sums, .. }| Sums {
            requests: sum.requests.saturating_add(sums.requests),
            cost: sum.cost.saturating_add(sums.cost),
            input_tokens: sum.input_tokens.saturating_add(sums.input_tokens),
            output_tokens: sum.output_tokens.saturating_add(sums.output_tokens),
        })
    }
}

#[derive(FromRow)]
struct PeriodRow {
    scope: String,
    name: Option<String>,
    requests: i64,
    spent: i64,
    cap: Option<i64>,
}

#[derive(FromRow)]
struct TagRow {
    kind: String,
    tag: Option<String>,
    requests: i64,
    spent: i64,
    cap: Option<i64>,
    all_requests: i64,
    all_spent: i64,
}

// The account's own row comes first, so that one statement, which sees one moment, says what carries no tag.
const BY_TAG: &str = "SELECT p.kind, CASE WHEN p.kind = 'tag' THEN SUBSTR(p.scope, LENGTH(p.account_id) + 6) END AS tag, \
    p.requests, p.spent, c.cap, \
    CAST(SUM(p.requests) OVER (PARTITION BY p.kind) AS BIGINT) AS all_requests, \
    CAST(SUM(p.spent) OVER (PARTITION BY p.kind) AS BIGINT) AS all_spent \
    FROM budget_periods p LEFT JOIN caps c ON c.scope = p.scope \
    WHERE p.account_id = $1 AND p.kind IN ('account', 'tag') AND p.period = $2 AND (p.requests > 0 OR p.spent > 0) \
    ORDER BY p.kind, p.spent DESC, p.requests DESC, p.scope LIMIT $3";

macro_rules! by_sub_account {
    ($which:literal) => {
        concat!(
            "SELECT p.scope, a.name, p.requests, p.spent, c.cap FROM budget_periods p \
             LEFT JOIN accounts a ON a.id = p.scope LEFT JOIN caps c ON c.scope = p.scope \
             WHERE p.account_id = $1 AND p.kind = 'sub_account' AND p.period = $2 AND (p.requests > 0 OR p.spent > 0)",
            $which,
            " ORDER BY p.spent DESC, p.requests DESC, p.scope LIMIT $3"
        )
    };
}

const BY_SUB_ACCOUNT: &str = by_sub_account!("");
const ONE_SUB_ACCOUNT: &str = by_sub_account!(" AND p.scope = $4");

/// Sums of the usage rows of the sub-account `$1` from `$2` until `$3`. What failed and cost nothing was not charged.
macro_rules! rows {
    ($what:literal, $order:literal) => {
        concat!(
            "SELECT ",
            $what,
            ", COUNT(CASE WHEN outcome = 'completed' OR cost > 0 THEN 1 END) AS requests, CAST(SUM(cost) AS BIGINT) AS cost, \
             CAST(SUM(input_tokens) AS BIGINT) AS input_tokens, CAST(SUM(output_tokens) AS BIGINT) AS output_tokens \
             FROM requests WHERE sub_account_id = $1 AND created_at >= $2 AND created_at < $3 GROUP BY 1 \
             HAVING COUNT(CASE WHEN outcome = 'completed' OR cost > 0 THEN 1 END) > 0 ORDER BY ",
            $order,
            " LIMIT $4"
        )
    };
}

const ROWS_BY_TAG: &str = rows!("tag", "3 DESC, 2 DESC, 1");
const ROWS_BY_MODEL: &str = rows!("model", "3 DESC, 2 DESC, 1");
const ROWS_BY_DAY: &str = rows!("created_at / 86400000 AS day", "1");

#[derive(FromRow)]
struct TagSums {
    tag: Option<String>,
    #[sqlx(flatten)]
    sums: Sums,
}

#[derive(FromRow)]
struct DaySums {
    day: i64,
    #[sqlx(flatten)]
    sums: Sums,
}

impl Store {
    /// What the tags of an account were charged in `month`, its sub-accounts' included; and what carries no tag, so that the
    /// lines add up to what the account was charged.
    pub async fn usage_by_tag(&self, account_id: &str, month: Month) -> Result<UsageLines, StoreError> {
        let rows: Vec<TagRow> = on!(self.db.read(), |pool| {
            let query = sqlx::query_as(BY_TAG).bind(account_id).bind(month.number());
            query.bind(MOST_AND_ONE + 1).fetch_all(pool).await
        })?;
        let (account, tags): (Vec<TagRow>, Vec<TagRow>) = rows.into_iter().partition(|row| row.kind == "account");
        let whole = account.first().map_or((0, 0), |row| (row.requests, row.spent));
        let tagged = tags.first().map_or((0, 0), |row| (row.all_requests, row.all_spent));
        let (requests, spent) = (whole.0.saturating_sub(tagged.0), whole.1.saturating_sub(tagged.1));
        let has_more = tags.len() > MOST;
        let line = |row: TagRow| UsageLine {
            id: row.tag,
            name: None,
            requests: row.requests,
            cost: Nano(row.spent),
            cap: row.cap.map(Nano),
        };
        let mut lines: Vec<UsageLine> = tags.into_iter().map(line).collect();
        if requests > 0 || spent > 0 {
            lines.push(UsageLine { id: None, name: None, requests, cost: Nano(spent), cap: None });
        }
        Ok(UsageLines::of(lines, has_more))
    }

    /// The same for one sub-account, from its usage rows; the caps of tags are its parent's and not told.
    pub async fn usage_of_sub_account_by_tag(&self, id: &str, month: Month) -> Result<UsageLines, StoreError> {
        let rows: Vec<TagSums> = on!(self.db.read(), |pool| {
            let query = sqlx::query_as(ROWS_BY_TAG).bind(id).bind(month.begins().0).bind(month.ends().0);
            query.bind(MOST_AND_ONE).fetch_all(pool).await
        })?;
        let line = |TagSums { tag, sums }| UsageLine {
            id: tag,
            name: None,
            requests: sums.requests,
            cost: Nano(sums.cost),
            cap: None,
        };
        Ok(UsageLines::of(rows.into_iter().map(line).collect(), false))
    }

    /// What the sub-accounts of an account were charged in `month`, deleted ones included; or `only` this one.
    pub async fn usage_by_sub_account(
        &self,
        account_id: &str,
        only: Option<&str>,
        month: Month,
    ) -> Result<UsageLines, StoreError> {
        let rows: Vec<PeriodRow> = on!(self.db.read(), |pool| {
            let query = sqlx::query_as(if only.is_some() { ONE_SUB_ACCOUNT } else { BY_SUB_ACCOUNT });
            let query = query.bind(account_id).bind(month.number()).bind(MOST_AND_ONE);
            let query = if let Some(only) = only { query.bind(only) } else { query };
            query.fetch_all(pool).await
        })?;
        let line = |row: PeriodRow| UsageLine {
            id: Some(row.scope),
            name: row.name,
            requests: row.requests,
            cost: Nano(row.spent),
            cap: row.cap.map(Nano),
        };
        Ok(UsageLines::of(rows.into_iter().map(line).collect(), false))
    }

    /// What a sub-account used from `from` until `to`, by its usage rows. Whether it may be asked about is the caller's to know.
    pub async fn usage_of_sub_account(
        &self,
        id: &str,
        from: Millis,
        to: Millis,
    ) -> Result<SubAccountUsage, StoreError> {
        let by_model: Vec<ModelUsage> = on!(self.db.read(), |pool| {
            let query = sqlx::query_as(ROWS_BY_MODEL).bind(id).bind(from.0).bind(to.0);
            query.bind(MOST_AND_ONE - 1).fetch_all(pool).await
        })?;
        let days: Vec<DaySums> = on!(self.db.read(), |pool| {
            let query = sqlx::query_as(ROWS_BY_DAY).bind(id).bind(from.0).bind(to.0);
            query.bind(MOST_AND_ONE - 1).fetch_all(pool).await
        })?;
        let day = |DaySums { day, sums }| DayUsage { begins: Millis(day * DAY_MS), sums };
        Ok(SubAccountUsage { by_model, by_day: days.into_iter().map(day).collect() })
    }
}
