//! The doctor: what must be true of the database at every moment, asked of it. Safe beside running processes: each question is
//! one statement, which sees one moment.

use std::time::Duration;

use aig_domain::Millis;

use tokio::time::Instant;

use crate::db::on;
use crate::{Store, StoreError, postgres};

/// How many findings of one kind are shown.
const MOST: i64 = 100;
/// How long PostgreSQL may take for one question.
const PATIENCE: Duration = Duration::from_mins(30);

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule it breaks.
    pub rule: &'static str,
    /// The scope, job, reservation or task.
    pub subject: String,
    /// What was found.
    pub detail: String,
}

/// One rule, and the statement that finds what breaks it: a subject and a detail per row. `$1` is the time of grace before which
/// work under way is no fault, `$2` the most rows.
struct Rule {
    rule: &'static str,
    sql: &'static str,
}

/// What was spent, held and uncertain in each scope, by the rows; and the counters, taken away from that.
macro_rules! sums {
    () => {
        concat!(
            "SELECT scope, period, SUM(spent) AS spent, SUM(held) AS held, SUM(uncertain) AS uncertain, \
             SUM(requests) AS requests FROM (",
            sums!("account_id", "TRUE"),
            " UNION ALL ",
            sums!("sub_account_id", "sub_account_id IS NOT NULL"),
            " UNION ALL ",
            sums!("key_id", "TRUE"),
            " UNION ALL ",
            sums!("'tag:' || account_id || ':' || tag", "tag IS NOT NULL"),
            " UNION ALL SELECT scope, period, -spent, -held, -uncertain, -requests FROM budget_periods) AS moves \
             GROUP BY scope, period"
        )
    };
    ($scope:literal, $when:literal) => {
        concat!(
            "SELECT ",
            $scope,
            " AS scope, period, 0 AS spent, CASE WHEN state = 'held' THEN amount ELSE 0 END AS held, \
             CASE WHEN state = 'uncertain' THEN amount WHEN state = 'settled' THEN COALESCE(doubt, 0) ELSE 0 END AS uncertain, \
             0 AS requests FROM reservations WHERE period IS NOT NULL AND state IN ('held', 'uncertain', 'settled') AND ",
            $when,
            " UNION ALL SELECT ",
            $scope,
            " AS scope, period, CASE WHEN kind = 'refund' THEN -amount ELSE amount END, 0, 0, \
             CASE WHEN kind = 'charge' THEN 1 ELSE 0 END FROM ledger WHERE ",
            $when
        )
    };
}

static RULES: [Rule; 12] = [
    Rule {
        rule: "the counters of a scope are the sums of its reservations and ledger rows",
        sql: concat!(
            "SELECT scope, 'period ' || CAST(period AS TEXT) || ': spent off by ' || CAST(-spent AS TEXT) || \
             ', held by ' || CAST(-held AS TEXT) || ', uncertain by ' || CAST(-uncertain AS TEXT) || ' nano-USD, requests by ' || CAST(-requests AS TEXT) FROM (",
            sums!(),
            ") AS sums WHERE (spent <> 0 OR held <> 0 OR uncertain <> 0 OR requests <> 0) AND $1 = $1 LIMIT $2"
        ),
    },
    Rule {
        rule: "a completed job has one charge, of what it says it cost",
        sql: "SELECT j.id, 'cost ' || CAST(j.cost AS TEXT) || ', charged ' || COALESCE(CAST(l.amount AS TEXT), 'nothing') \
              FROM jobs j LEFT JOIN reservations r ON r.id = j.id \
              LEFT JOIN ledger l ON l.subject = j.id AND l.kind = 'charge' \
              WHERE j.status = 'completed' AND (r.period IS NOT NULL OR j.cost <> 0) AND (l.amount IS NULL OR l.amount <> j.cost) \
              AND $1 = $1 LIMIT $2",
    },
    Rule {
        rule: "a job that failed costs nothing",
        sql: "SELECT j.id, 'cost ' || CAST(j.cost AS TEXT) || ', ledger ' || CAST(COALESCE(l.amount, 0) AS TEXT) FROM jobs j \
              LEFT JOIN ledger l ON l.subject = j.id WHERE j.status = 'failed' AND (j.cost <> 0 OR l.amount IS NOT NULL) \
              AND $1 = $1 LIMIT $2",
    },
    Rule {
        rule: "a job that has ended holds nothing, and one that has not holds its reservation",
        sql: "SELECT j.id, 'status ' || j.status || ', reservation ' || COALESCE(r.state, 'missing') FROM jobs j \
              LEFT JOIN reservations r ON r.id = j.id WHERE (j.status IN ('completed', 'failed') AND r.state = 'held' \
              OR j.status IN ('queued', 'processing') AND COALESCE(r.state, '') <> 'held') AND $1 = $1 LIMIT $2",
    },
    Rule {
        rule: "a settled reservation has its charge in the ledger, and no other reservation has one",
        sql: "SELECT r.id, 'state ' || r.state || ', charged ' || COALESCE(CAST(r.charged AS TEXT), 'nothing') || ', ledger ' || \
              COALESCE(CAST(l.amount AS TEXT), 'nothing') FROM reservations r \
              LEFT JOIN ledger l ON l.subject = r.id AND l.kind = 'charge' WHERE r.period IS NOT NULL \
              AND (r.state = 'settled' AND (l.amount IS NULL OR l.amount <> COALESCE(r.charged, -1)) \
              OR r.state <> 'settled' AND l.amount IS NOT NULL) AND $1 = $1 LIMIT $2",
    },
    Rule {
        rule: "no more was given back than was charged",
        sql: "SELECT subject, 'off by ' || CAST(SUM(CASE WHEN kind = 'refund' THEN amount ELSE -amount END) AS TEXT) FROM ledger \
              WHERE kind IN ('charge', 'refund') AND $1 = $1 GROUP BY subject \
              HAVING SUM(CASE WHEN kind = 'refund' THEN amount ELSE -amount END) > 0 LIMIT $2",
    },
    Rule {
        rule: "a usage row says what the ledger charged",
        sql: "SELECT q.id, 'cost ' || CAST(q.cost AS TEXT) || ', ledger ' || COALESCE(CAST(l.amount AS TEXT), 'nothing') \
              FROM requests q LEFT JOIN ledger l ON l.subject = COALESCE(q.job_id, q.id) AND l.kind = 'charge' \
              WHERE q.cost <> COALESCE(l.amount, 0) AND $1 = $1 LIMIT $2",
    },
    Rule {
        rule: "a chat call's reservation is ended when its time is over",
        sql: "SELECT id, 'held since ' || CAST(created_at AS TEXT) FROM reservations \
              WHERE state = 'held' AND expires_at IS NOT NULL AND expires_at < $1 LIMIT $2",
    },
    Rule {
        rule: "a job ends by its deadline",
        sql: "SELECT id, 'status ' || status || ', deadline ' || CAST(deadline_at AS TEXT) FROM jobs \
              WHERE status IN ('queued', 'processing') AND deadline_at < $1 LIMIT $2",
    },
    Rule {
        rule: "a job that has not ended has a task, and one that has ended has none to run",
        sql: "SELECT j.id, 'status ' || j.status || ', task ' || COALESCE(t.state, 'missing') FROM jobs j \
              LEFT JOIN tasks t ON t.ref_id = j.id AND t.kind = 'generate' \
              WHERE (j.status IN ('queued', 'processing') AND COALESCE(t.state, '') NOT IN ('ready', 'waiting', 'running') \
              OR j.status IN ('completed', 'failed') AND t.state IN ('ready', 'waiting', 'running')) AND $1 = $1 LIMIT $2",
    },
    Rule {
        rule: "a webhook delivery is tried when it is due",
        sql: "SELECT id, 'state ' || state || ', due ' || CAST(run_at AS TEXT) FROM tasks \
              WHERE kind = 'webhook' AND state IN ('ready', 'waiting') AND run_at < $1 LIMIT $2",
    },
    Rule {
        rule: "a task belongs to a process that is alive",
        sql: "SELECT t.id, 'worker ' || COALESCE(t.worker, 'none') FROM tasks t LEFT JOIN workers w ON w.id = t.worker \
              WHERE t.state = 'running' AND (w.id IS NULL OR w.lease_until < $1) LIMIT $2",
    },
];

impl Store {
    /// Looks for what breaks a rule; empty when all is well. What is late is reported when it was due before `late_since`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn doctor(&self, late_since: Millis) -> Result<Vec<Finding>, StoreError> {
        let mut findings = Vec::new();
        let mut alone = self.db.for_reports().await?;
        for Rule { rule, sql } in &RULES {
            let rows: Vec<(String, String)> = match &mut alone {
                Some(connection) => {
                    let query = sqlx::query_as(*sql).bind(late_since.0).bind(MOST).fetch_all(connection);
                    postgres::within(Instant::now() + PATIENCE, query).await?
                }
                None => on!(self.db.read(), |pool| {
                    sqlx::query_as(*sql).bind(late_since.0).bind(MOST).fetch_all(pool).await
                })?,
            };
            findings.extend(rows.into_iter().map(|(subject, detail)| Finding { rule, subject, detail }));
        }
        Ok(findings)
    }

    /// How many rules the doctor knows.
    pub fn doctor_rules() -> usize {
        RULES.len()
    }
}
