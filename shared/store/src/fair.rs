//! Fairness between tenants: where a new task stands in its queue.
//!
//! `fair_seq = max(highest claimed so far in this queue, this tenant's last in this queue) + 1`. A tenant with 10,000
//! waiting tasks thus pushes only its own further tasks back.

use std::collections::BTreeMap;

use crate::StoreError;
use crate::db::{Tx, on};

const TAKE: &str = "INSERT INTO queue_tenants (queue, account_id, last_seq) \
    VALUES ($1, $2, $3 + COALESCE((SELECT claimed_seq FROM queue_cursors WHERE queue = $1), 0)) \
    ON CONFLICT (queue, account_id) DO UPDATE SET last_seq = CASE \
        WHEN queue_tenants.last_seq + $3 > excluded.last_seq THEN queue_tenants.last_seq + $3 \
        ELSE excluded.last_seq END \
    RETURNING last_seq";

const CLAIMED: &str = "INSERT INTO queue_cursors (queue, claimed_seq) VALUES ($1, $2) \
    ON CONFLICT (queue) DO UPDATE SET claimed_seq = CASE \
        WHEN queue_cursors.claimed_seq > excluded.claimed_seq THEN queue_cursors.claimed_seq \
        ELSE excluded.claimed_seq END";

/// Takes places for new tasks, each given as (queue, account); the answer has the same order. Rows are locked in order of
/// queue and account, so that two processes never wait for each other crosswise.
pub(crate) async fn take_places(tx: &mut Tx, tasks: &[(&str, &str)]) -> Result<Vec<i64>, StoreError> {
    let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for task in tasks {
        *counts.entry(*task).or_default() += 1;
    }
    let mut next: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for ((queue, account), count) in counts {
        let last: i64 =
            on!(tx.conn(), |c| { sqlx::query_scalar(TAKE).bind(queue).bind(account).bind(count).fetch_one(c).await })?;
        next.insert((queue, account), last - count);
    }
    Ok(tasks
        .iter()
        .map(|task| {
            next.get_mut(task).map_or(0, |seq| {
                *seq += 1;
                *seq
            })
        })
        .collect())
}

/// Records that a task at `seq` was claimed from `queue`.
pub(crate) async fn claimed(tx: &mut Tx, queue: &str, seq: i64) -> Result<(), StoreError> {
    on!(tx.conn(), |c| sqlx::query(CLAIMED).bind(queue).bind(seq).execute(c).await.map(drop))?;
    Ok(())
}
