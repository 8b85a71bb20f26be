//! Writing tasks: ready for whoever claims them, or in the hands of the worker that made them.

use aig_domain::Millis;
use aig_domain::task::{Phase, TaskKind};

use crate::db::{Tx, on};
use crate::sql::{Rows, with_blanks};
use crate::{StoreError, fair};

/// A task to be written.
pub(crate) struct NewTask<'a> {
    pub(crate) id: &'a str,
    pub(crate) kind: TaskKind,
    pub(crate) queue: &'a str,
    pub(crate) ref_id: &'a str,
    pub(crate) account_id: &'a str,
    pub(crate) run_at: Millis,
    /// Who holds it from the beginning, under [`FIRST_EPOCH`].
    pub(crate) claim: Option<&'a TaskClaim>,
}

/// That a task is claimed by the very transaction that makes it.
#[derive(Clone, Debug)]
pub struct TaskClaim {
    /// The claiming worker.
    pub worker: String,
    /// A fresh id, by which the claim is found again.
    pub claim_id: String,
}

/// The epoch of the first claim of a task.
pub const FIRST_EPOCH: i64 = 1;

static INSERT_TASKS: Rows = Rows::new(
    "INSERT INTO tasks (id, kind, queue, ref_id, account_id, fair_seq, run_at, phase, state, worker, claim_id, \
     lease_epoch, priority, attempt, crash_count) \
     SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, \
     column11, column12, 0, 0, 0 FROM (VALUES ",
    &["TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT"],
    ") AS v WHERE column1 IS NOT NULL",
);

/// Writes tasks: those that are ready to run each in its tenant's next place, those that are claimed in none. Should one of
/// them come back to its queue, it goes first, since its turn had come.
pub(crate) async fn insert_tasks(tx: &mut Tx, tasks: &[NewTask<'_>]) -> Result<(), StoreError> {
    let ready: Vec<&NewTask<'_>> = tasks.iter().filter(|task| task.claim.is_none()).collect();
    let owners: Vec<(&str, &str)> = ready.iter().map(|task| (task.queue, task.account_id)).collect();
    let places = fair::take_places(tx, &owners).await?;
    let claimed = tasks.iter().filter(|task| task.claim.is_some()).map(|task| (task, 0));
    let in_place: Vec<(&NewTask<'_>, i64)> = ready.into_iter().zip(places).chain(claimed).collect();
    for piece in with_blanks(&in_place) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(INSERT_TASKS.sql(piece.len()));
            for place in piece {
                let (task, fair_seq) = (place.map(|(task, _)| *task), place.map(|(_, fair_seq)| *fair_seq));
                let claim = task.and_then(|task| task.claim);
                query = query
                    .bind(task.map(|task| task.id))
                    .bind(task.map(|task| task.kind.as_str()))
                    .bind(task.map(|task| task.queue))
                    .bind(task.map(|task| task.ref_id))
                    .bind(task.map(|task| task.account_id))
                    .bind(fair_seq)
                    .bind(task.map(|task| task.run_at.0))
                    .bind(Phase::New.as_str())
                    .bind(if claim.is_some() { "running" } else { "ready" })
                    .bind(claim.map(|claim| &claim.worker))
                    .bind(claim.map(|claim| &claim.claim_id))
                    .bind(if claim.is_some() { FIRST_EPOCH } else { 0 });
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}
