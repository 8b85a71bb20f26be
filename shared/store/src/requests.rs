//! One row for each request that reached a provider, or might have: what it used, what it cost, and at which price.

use aig_domain::caps::Payer;
use aig_domain::price::Used;
use aig_domain::{Millis, Nano};

use crate::StoreError;
use crate::db::{Tx, on};
use crate::sql::{Rows, with_blanks};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// With a whole answer.
    Completed,
    /// Without one.
    Failed,
    /// Its client left before the end.
    ClientLeft,
    /// Nobody knows whether the provider did the work.
    Uncertain,
}

impl RequestOutcome {
    /// The word in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::ClientLeft => "client_left",
            Self::Uncertain => "uncertain",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        let all = [Self::Completed, Self::Failed, Self::ClientLeft, Self::Uncertain];
        all.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// The usage row of one request.
#[derive(Clone, Debug)]
pub struct RequestRow {
    /// `req_…`
    pub id: String,
    /// Who pays.
    pub payer: Payer,
    /// The job that it submitted, if it did.
    pub job_id: Option<String>,
    /// The model's full id.
    pub model: String,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The HTTP status that the client got, or would have.
    pub status: u16,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// When it came.
    pub created_at: Millis,
    /// How long it took.
    pub duration_ms: u64,
    /// What was used.
    pub used: Used,
    /// Whether we counted that ourselves.
    pub estimated: bool,
    /// The prices it was charged at, as JSON; `None` for a model without any.
    pub price: Option<String>,
    /// What it cost its payer.
    pub cost: Nano,
}

static INSERT: Rows = Rows::new(
    "INSERT INTO requests (id, account_id, sub_account_id, key_id, tag, kind, job_id, model, provider, status, outcome, \
     created_at, duration_ms, used, estimated, price, cost, input_tokens, output_tokens) SELECT column1, column2, column3, column4, column5, column6, \
     column7, column8, column9, column10, column11, column12, column13, column14, column15, column16, column17, column18, \
     column19 \
     FROM (VALUES ",
    &[
        "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "TEXT", "BIGINT", "BIGINT",
        "TEXT", "BOOLEAN", "TEXT", "BIGINT", "BIGINT", "BIGINT",
    ],
    ") AS v WHERE column1 IS NOT NULL ON CONFLICT (id) DO NOTHING",
);

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Writes usage rows; one that is there stays as it is.
pub(crate) async fn insert(tx: &mut Tx, rows: &[&RequestRow]) -> Result<(), StoreError> {
    for piece in with_blanks(rows) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT.sql(piece.len()));
            for row in piece {
                let payer = row.map(|row| &row.payer);
                let kind = row.map(|row| if row.job_id.is_some() { "job" } else { "chat" });
                query = query
                    .bind(row.map(|row| &row.id))
                    .bind(payer.map(|payer| &payer.account_id))
                    .bind(payer.and_then(|payer| payer.sub_account_id.as_ref()))
                    .bind(payer.map(|payer| &payer.key_id))
                    .bind(payer.and_then(|payer| payer.tag.as_ref()))
                    .bind(kind)
                    .bind(row.and_then(|row| row.job_id.as_ref()))
                    .bind(row.map(|row| &row.model))
                    .bind(row.map(|row| &row.provider))
                    .bind(row.map(|row| i64::from(row.status)))
                    .bind(row.map(|row| row.outcome.as_str()))
                    .bind(row.map(|row| row.created_at.0))
                    .bind(row.map(|row| number(row.duration_ms)))
                    .bind(row.and_then(|row| serde_json::to_string(&row.used).ok()))
                    .bind(row.map(|row| row.estimated))
                    .bind(row.and_then(|row| row.price.as_ref()))
                    .bind(row.map(|row| row.cost.0))
                    .bind(row.map(|row| number(row.used.input_tokens)))
                    .bind(row.map(|row| number(row.used.output_tokens)));
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}
