//! The lane of admissions: jobs, chat calls with a cap above them, and more money for one of those.
//!
//! One transaction takes many: {idempotency rows; the balances of all scopes, locked; [`admit`], in the order in which the
//! requests came; jobs, reservations, tasks of those admitted}. Nothing remains of what was refused.

use std::collections::HashMap;

use aig_domain::budget::Reservation;
use aig_domain::caps::{Balances, Exhausted, Payer, Scope, admit};
use aig_domain::job::Job;
use aig_domain::task::TaskKind;
use aig_domain::{Millis, Month, Nano};

use crate::balances::{self, Change, Changes};
use crate::combine::Batch;
use crate::db::{Db, Tx, on};
use crate::enqueue::{NewTask, insert_tasks};
use crate::idempotency::{self, Earlier, Idempotency};
use crate::jobs::{self, job_by_id};
use crate::ledger::Ledger;
use crate::reservations::{self, NewReservation};
use crate::{Store, StoreError};

/// A job to be accepted, already checked, with status `queued`.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The job. Its price is what is reserved.
    pub job: Job,
    /// The id of its task.
    pub task_id: String,
    /// Who pays.
    pub payer: Payer,
    /// The prices it was made with, as JSON; `None` for a model without any.
    pub price: Option<String>,
    /// The request's idempotency key, if it sent one.
    pub idempotency: Option<Idempotency>,
}

/// What became of a [`NewJob`].
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It is stored.
    New(Box<Job>),
    /// Its key was used before with the same body: this is that job as it now stands.
    Replayed(Box<Job>),
    /// Its key was used before with another body.
    Mismatch,
    /// It does not fit under a cap. Nothing was stored.
    Refused(Box<Exhausted>),
}

/// A chat call that needs a reservation, since a cap may stand above it.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// The request's id.
    pub id: String,
    /// Who pays.
    pub payer: Payer,
    /// The most that it may cost.
    pub amount: Nano,
    /// The prices it was made with, as JSON.
    pub price: Option<String>,
    /// When it came; decides the period.
    pub created_at: Millis,
    /// When nobody will say any more how it ended.
    pub expires_at: Millis,
    /// The process that makes the call.
    pub owner: String,
    /// The model's full id.
    pub model: String,
    /// The provider's name in the configuration.
    pub provider: String,
}

impl Store {
    /// Stores a job with its task and its reservation. Durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too much is waiting: nothing is stored.
    pub async fn accept_job(&self, new: NewJob) -> Result<Accepted, StoreError> {
        match self.accept.submit(Item::Job(Box::new(new))).await? {
            Output::Job(accepted) => Ok(accepted),
            Output::Call(_) | Output::Raised(_) => Err(mixed_up()),
        }
    }

    /// Reserves what a chat call may cost, in all its scopes at once. Durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too much is waiting: nothing is reserved. After an error whose outcome is unknown the
    /// reservation may stand: it runs out by itself, and never gives anybody more than the cap.
    pub async fn reserve_call(&self, call: NewCall) -> Result<Result<Reservation, Box<Exhausted>>, StoreError> {
        match self.accept.submit(Item::Call(Box::new(call))).await? {
            Output::Call(reserved) => Ok(reserved),
            Output::Job(_) | Output::Raised(_) => Err(mixed_up()),
        }
    }

    /// Adds `amount` to a reservation that is held: for a further attempt that may be billed beside the first.
    ///
    /// # Errors
    /// When the store fails; then nothing was added, or the outcome is unknown and the reservation may hold too much.
    pub async fn raise_reservation(&self, id: &str, amount: Nano) -> Result<Raised, StoreError> {
        let raise = Raise { id: id.to_owned(), amount };
        match self.accept.submit(Item::Raise(raise)).await? {
            Output::Raised(raised) => Ok(raised),
            Output::Job(_) | Output::Call(_) => Err(mixed_up()),
        }
    }
}

fn mixed_up() -> StoreError {
    StoreError::Corrupt("an item of the accept lane got another one's answer".into())
}

/// More for one reservation.
pub(crate) struct Raise {
    id: String,
    amount: Nano,
}

/// What became of [`Store::raise_reservation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raised {
    /// It holds that much more.
    Yes,
    /// It is not held any more, or never was.
    NotHeld,
    /// It does not fit under a cap.
    Refused(Box<Exhausted>),
}

pub(crate) enum Item {
    Job(Box<NewJob>),
    Call(Box<NewCall>),
    Raise(Raise),
}

impl Item {
    fn reservation(&self) -> Option<NewReservation<'_>> {
        Some(match self {
            Self::Job(new) => NewReservation {
                id: &new.job.id,
                kind: "job",
                payer: &new.payer,
                amount: new.job.price,
                price: new.price.as_deref(),
                created_at: new.job.created_at,
                expires_at: None,
                owner: None,
                model: &new.job.model,
                provider: &new.job.provider,
            },
            Self::Call(call) => NewReservation {
                id: &call.id,
                kind: "chat",
                payer: &call.payer,
                amount: call.amount,
                price: call.price.as_deref(),
                created_at: call.created_at,
                expires_at: Some(call.expires_at),
                owner: Some(&call.owner),
                model: &call.model,
                provider: &call.provider,
            },
            Self::Raise(_) => return None,
        })
    }
}

pub(crate) enum Output {
    Job(Accepted),
    Call(Result<Reservation, Box<Exhausted>>),
    Raised(Raised),
}

pub(crate) struct AcceptBatch;

impl Batch for AcceptBatch {
    type Item = Item;
    type Output = Output;
    // Jobs of one tenant take their places in its queue one after the other, and all admissions their place in its balance, so
    // that a second transaction would only wait.
    const AT_ONCE: usize = 1;
    const NAME: &'static str = "accept";

    async fn run(&self, tx: &mut Tx, items: &[&Item]) -> Result<Vec<Output>, StoreError> {
        let jobs: Vec<&NewJob> =
            items.iter().filter_map(|item| if let Item::Job(new) = item { Some(&**new) } else { None }).collect();
        let earlier = idempotency::claim_keys(tx, &jobs).await?;
        let raised = lock_raised(tx, items).await?;
        let mut changes = Changes::default();
        let refused = admit_all(tx, items, &earlier, &raised, &mut changes).await?;
        let is_new = |id: &str| !earlier.contains_key(id) && !refused.contains_key(id);
        let mut admitted: Vec<&NewJob> = jobs.iter().filter(|new| is_new(&new.job.id)).copied().collect();
        admitted.sort_by(|a, b| a.job.id.cmp(&b.job.id));
        jobs::insert(tx, &admitted.iter().map(|new| &new.job).collect::<Vec<_>>()).await?;
        let mut reserved: Vec<NewReservation<'_>> =
            items.iter().filter_map(|item| item.reservation()).filter(|new| is_new(new.id)).collect();
        reserved.sort_by(|a, b| a.id.cmp(b.id));
        reservations::insert(tx, &reserved, &mut changes).await?;
        let tasks: Vec<NewTask<'_>> = admitted.iter().map(|new| generate(new)).collect();
        insert_tasks(tx, &tasks).await?;
        idempotency::free_keys(tx, jobs.iter().filter(|new| refused.contains_key(new.job.id.as_str()))).await?;
        balances::apply(tx, &changes).await?;
        items.iter().map(|item| output(item, items, &earlier, &refused, &raised)).collect()
    }

    async fn look_up(&self, db: &Db, item: &Item) -> Result<Option<Output>, StoreError> {
        match item {
            Item::Job(new) => {
                Ok(job_by_id(db, &new.job.id).await?.map(|job| Output::Job(Accepted::New(Box::new(job)))))
            }
            Item::Call(call) => {
                let found: Option<i64> = on!(db.read(), |pool| {
                    sqlx::query_scalar("SELECT amount FROM reservations WHERE id = $1")
                        .bind(&call.id)
                        .fetch_optional(pool)
                        .await
                })?;
                Ok(found.map(|_| Output::Call(Ok(Ledger::mint(&call.id, call.amount)))))
            }
            // Nothing tells one raise from another.
            Item::Raise(_) => Ok(None),
        }
    }

    fn may_repeat(&self, item: &Item) -> bool {
        !matches!(item, Item::Raise(_))
    }
}

/// A reservation to be raised, as it stands: its payer and its period.
type Raisable = HashMap<String, (Payer, Month)>;

async fn lock_raised(tx: &mut Tx, items: &[&Item]) -> Result<Raisable, StoreError> {
    let ids: Vec<&str> = items
        .iter()
        .filter_map(|item| if let Item::Raise(raise) = item { Some(raise.id.as_str()) } else { None })
        .collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = reservations::lock(tx, &ids).await?;
    let held = rows.into_values().filter(|row| row.state == "held");
    Ok(held
        .filter_map(|row| {
            let (payer, period) = row.payer()?;
            Some((row.id, (payer, Month::from_number(period)?)))
        })
        .collect())
}

/// Admits the items in the order in which they came; gives, by id, what refused the others.
async fn admit_all<'a>(
    tx: &mut Tx,
    items: &[&'a Item],
    earlier: &HashMap<String, Earlier>,
    raised: &Raisable,
    changes: &mut Changes,
) -> Result<HashMap<&'a str, Exhausted>, StoreError> {
    let mut wishes: Vec<(&'a Item, &'a str, &Payer, Month, Nano)> = Vec::with_capacity(items.len());
    for item in items.iter().copied() {
        match item {
            Item::Job(new) if earlier.contains_key(&new.job.id) => {}
            Item::Job(new) => {
                wishes.push((item, &new.job.id, &new.payer, Month::of(new.job.created_at), new.job.price));
            }
            Item::Call(call) => wishes.push((item, &call.id, &call.payer, Month::of(call.created_at), call.amount)),
            Item::Raise(raise) => {
                if let Some((payer, month)) = raised.get(&raise.id) {
                    wishes.push((item, &raise.id, payer, *month, raise.amount));
                }
            }
        }
    }
    if wishes.is_empty() {
        return Ok(HashMap::new());
    }
    let payers: Vec<(&Payer, Month)> = wishes.iter().map(|(_, _, payer, month, _)| (*payer, *month)).collect();
    let mut balances: HashMap<Month, Balances> = balances::lock(tx, &payers).await?;
    let mut refused = HashMap::new();
    for (item, id, payer, month, amount) in wishes {
        let scopes: Vec<Scope> = payer.scopes().collect();
        match admit(balances.entry(month).or_default(), &scopes, amount) {
            Ok(()) if matches!(item, Item::Raise(_)) => {
                raise(tx, id, amount).await?;
                changes.add(payer, month.number(), Change { held: amount.0, ..Change::default() });
            }
            Ok(()) => {}
            Err(exhausted) => {
                metrics::counter!("aig_budget_refusals_total", "scope" => exhausted.scope.kind.as_str()).increment(1);
                refused.insert(id, exhausted);
            }
        }
    }
    Ok(refused)
}

async fn raise(tx: &mut Tx, id: &str, amount: Nano) -> Result<(), StoreError> {
    on!(tx.conn(), |c| {
        sqlx::query("UPDATE reservations SET amount = amount + $2 WHERE id = $1")
            .bind(id)
            .bind(amount.0)
            .execute(c)
            .await
            .map(drop)
    })?;
    Ok(())
}

fn output(
    item: &Item,
    items: &[&Item],
    earlier: &HashMap<String, Earlier>,
    refused: &HashMap<&str, Exhausted>,
    raised: &Raisable,
) -> Result<Output, StoreError> {
    let no = |id: &str| refused.get(id).map(|exhausted| Box::new(exhausted.clone()));
    Ok(match item {
        Item::Job(new) => Output::Job(match earlier.get(&new.job.id) {
            Some(Earlier::Stored(accepted)) => accepted.clone(),
            // The first one is another item of this very batch, and the answers are the same.
            Some(Earlier::Beside(first)) => {
                let first = items.iter().find_map(|item| match item {
                    Item::Job(new) if new.job.id == *first => Some(&new.job),
                    _ => None,
                });
                let first = first.ok_or_else(mixed_up)?;
                no(&first.id).map_or_else(|| Accepted::Replayed(Box::new(first.clone())), Accepted::Refused)
            }
            None => no(&new.job.id).map_or_else(|| Accepted::New(Box::new(new.job.clone())), Accepted::Refused),
        }),
        Item::Call(call) => Output::Call(match no(&call.id) {
            Some(exhausted) => Err(exhausted),
            None => Ok(Ledger::mint(&call.id, call.amount)),
        }),
        Item::Raise(raise) => Output::Raised(match (raised.contains_key(&raise.id), no(&raise.id)) {
            (_, Some(exhausted)) => Raised::Refused(exhausted),
            (true, None) => Raised::Yes,
            (false, None) => Raised::NotHeld,
        }),
    })
}

fn generate(new: &NewJob) -> NewTask<'_> {
    NewTask {
        id: &new.task_id,
        kind: TaskKind::Generate,
        queue: new.job.modality.as_str(),
        ref_id: &new.job.id,
        account_id: &new.job.account_id,
        run_at: new.job.created_at,
        claim: None,
    }
}
