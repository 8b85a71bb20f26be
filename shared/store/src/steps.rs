//! How far a claimed task has come: intent before a submit, the provider's id once it is known, and putting it back.

use std::collections::HashSet;

use aig_domain::Millis;
use aig_domain::task::{Lease, Phase};

use crate::StoreError;
use crate::db::{Tx, on};
use crate::sql::{Rows, padded};

/// One step of one claimed task.
#[derive(Clone, Debug)]
pub struct Step {
    /// The right to write it.
    pub lease: Lease,
    /// What is recorded.
    pub kind: StepKind,
    /// When.
    pub now: Millis,
}

/// What a step records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A submit is about to be sent. The job reads `processing` from now on.
    Submitting,
    /// The provider has the work under this id.
    Submitted(String),
    /// The provider's own progress, in per cent.
    Progress(i64),
    /// The result is about to be fetched. The provider's id, if it is not on record yet.
    Storing(Option<String>),
    /// The submit provably did not happen, or may be repeated: back to the queue, to run at `at`.
    Retry {
        /// Whether the outcome of the submit is not known; only for providers that take an idempotency key.
        unknown: bool,
        /// When to run again.
        at: Millis,
        /// Why, for the operator.
        error: String,
    },
    /// The worker gives the task back as it is, for another to go on; this is no crash.
    Release,
}

impl Step {
    fn phase(&self) -> Option<Phase> {
        match &self.kind {
            StepKind::Submitting | StepKind::Retry { unknown: true, .. } => Some(Phase::Submitting),
            StepKind::Retry { unknown: false, .. } => Some(Phase::New),
            StepKind::Submitted(_) => Some(Phase::Polling),
            StepKind::Storing(_) => Some(Phase::Storing),
            StepKind::Progress(_) | StepKind::Release => None,
        }
    }

    fn state(&self) -> &'static str {
        match &self.kind {
            StepKind::Retry { .. } => "waiting",
            StepKind::Release => "ready",
            _ => "running",
        }
    }
}

static UPDATE_TASKS: Rows = Rows::new(
    "WITH v (id, epoch, phase, provider_task, state, run_at, attempts, error) AS (VALUES ",
    &["TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "TEXT"],
    ") UPDATE tasks SET phase = COALESCE(v.phase, tasks.phase), \
     provider_task = COALESCE(v.provider_task, tasks.provider_task), state = v.state, \
     run_at = COALESCE(v.run_at, tasks.run_at), attempt = tasks.attempt + v.attempts, claim_id = NULL, \
     last_error = COALESCE(v.error, tasks.last_error) \
     FROM v WHERE tasks.id = v.id AND tasks.lease_epoch = v.epoch \
     AND COALESCE(tasks.state, '') = 'running' \
     RETURNING tasks.id, tasks.lease_epoch",
);

static UPDATE_JOBS: Rows = Rows::new(
    "WITH v (task_id, progress, now) AS (VALUES ",
    &["TEXT", "BIGINT", "BIGINT"],
    ") UPDATE jobs SET status = 'processing', progress = COALESCE(v.progress, jobs.progress), updated_at = v.now, \
     version = jobs.version + 1 \
     FROM v, tasks WHERE tasks.id = v.task_id AND jobs.id = tasks.ref_id AND jobs.status IN ('queued', 'processing')",
);

/// Records `steps`; gives, for each, whether its lease was still held.
///
/// One statement takes each task once. Several steps of one task in one batch (a step whose caller gave up, and the hand-back
/// that followed) run one after the other, in the order in which they came.
pub(crate) async fn run(tx: &mut Tx, steps: &[&Step]) -> Result<Vec<bool>, StoreError> {
    let mut recorded = vec![false; steps.len()];
    let mut left: Vec<(usize, &Step)> = steps.iter().copied().enumerate().collect();
    while !left.is_empty() {
        let mut seen = HashSet::with_capacity(left.len());
        let (round, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, step)| seen.insert(&step.lease));
        let held = run_once(tx, &round.iter().map(|(_, step)| *step).collect::<Vec<_>>()).await?;
        for (index, step) in round {
            recorded[index] = held.contains(&step.lease);
        }
        left = later;
    }
    Ok(recorded)
}

/// Records steps of as many different tasks.
async fn run_once(tx: &mut Tx, steps: &[&Step]) -> Result<HashSet<Lease>, StoreError> {
    let mut sorted: Vec<&Step> = steps.to_vec();
    sorted.sort_by(|a, b| a.lease.task_id.cmp(&b.lease.task_id));
    let mut held = HashSet::with_capacity(sorted.len());
    for piece in padded(&sorted) {
        let rows: Vec<(String, i64)> = on!(tx.conn(), |c| {
            let mut query = sqlx::query_as(UPDATE_TASKS.sql(piece.len()));
            for step in &piece {
                let (provider_task, run_at, attempts, error) = match &step.kind {
                    StepKind::Submitted(task) | StepKind::Storing(Some(task)) => (Some(task), None, 0_i64, None),
                    StepKind::Retry { at, error, .. } => (None, Some(at.0), 1, Some(error)),
                    StepKind::Release => (None, Some(step.now.0), 0, None),
                    _ => (None, None, 0, None),
                };
                query = query
                    .bind(&step.lease.task_id)
                    .bind(step.lease.epoch)
                    .bind(step.phase().map(Phase::as_str))
                    .bind(provider_task)
                    .bind(step.state())
                    .bind(run_at)
                    .bind(attempts)
                    .bind(error);
            }
            query.fetch_all(c).await
        })?;
        held.extend(rows.into_iter().map(|(task_id, epoch)| Lease { task_id, epoch }));
    }
    update_jobs(tx, &sorted, &held).await?;
    Ok(held)
}

/// What the owner of the job can see: that it is being worked on, and the provider's progress.
async fn update_jobs(tx: &mut Tx, steps: &[&Step], held: &HashSet<Lease>) -> Result<(), StoreError> {
    let visible: Vec<(&Step, Option<i64>)> = steps
        .iter()
        .filter(|step| held.contains(&step.lease))
        .filter_map(|step| match step.kind {
            StepKind::Submitting => Some((*step, None)),
            StepKind::Progress(progress) => Some((*step, Some(progress))),
            _ => None,
        })
        .collect();
    for piece in padded(&visible) {
        on!(tx.conn(), |c| {
            let mut query = sqlx::query(UPDATE_JOBS.sql(piece.len()));
            for (step, progress) in &piece {
                query = query.bind(&step.lease.task_id).bind(*progress).bind(step.now.0);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

const FIND: &str = "SELECT state, phase FROM tasks WHERE id = $1 AND lease_epoch = $2 AND claim_id IS NULL";

/// Whether `step` was committed by a transaction whose answer was lost.
pub(crate) async fn is_recorded(tx: &mut Tx, step: &Step) -> Result<bool, StoreError> {
    let found: Option<(String, String)> = on!(tx.conn(), |c| {
        sqlx::query_as(FIND).bind(&step.lease.task_id).bind(step.lease.epoch).fetch_optional(c).await
    })?;
    // Writing progress twice is harmless, so only what changes the row's state or phase needs to be recognised.
    let wanted = step.phase().map(Phase::as_str);
    Ok(found.is_some_and(|(state, phase)| {
        state == step.state()
            && wanted.is_none_or(|wanted| wanted == phase)
            && !matches!(step.kind, StepKind::Progress(_))
    }))
}
