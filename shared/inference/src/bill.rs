//! The money side of one chat call: reserve before it, settle after it, whatever happens in between.
//!
//! A call whose payer may have a cap above it is reserved with the most that it may cost ([`crate::bound`]); without one it needs no
//! I/O before dispatch, and its charge is written when it has ended. Every end is written by the task that makes the call,
//! which outlives its client, after the client has its answer.

use std::sync::Arc;
use std::time::Duration;

use aig_domain::budget::{Billing, OpenCall, Receipt, Reservation, Usage};
use aig_domain::caps::Payer;
use aig_domain::price::{Price, Used};
use aig_domain::retry::{exponential, jitter};
use aig_domain::{Clock, Error, Millis, Nano};
use aig_store::{CallEnd, MoneyEnd, NewCall, RequestOutcome, RequestRow, Store, StoreError};
use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long an end is written again and again while the database is away. After that a reservation runs out by itself.
const WRITE_FOR: Duration = Duration::from_mins(10);
/// How long after its longest time a call's reservation runs out.
const GRACE: Duration = Duration::from_mins(2);

/// When a commit that was lost is looked for again.
const LATE: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_mins(1)];

/// Where the money of calls is written.
#[async_trait]
pub(crate) trait Books: Send + Sync {
    /// The time.
    fn now(&self) -> Millis;

    /// A reservation for a call that no cap stands above.
    fn uncapped(&self, request_id: &str) -> Reservation;

    /// Reserves for a call that a cap may stand above.
    async fn reserve(&self, call: NewCall) -> Result<Reservation, Error>;

    /// What a receipt says; the receipt ends here.
    fn receive(&self, receipt: Receipt) -> Billing;

    /// Writes the end of a call, and does not give up lightly.
    async fn write(&self, end: CallEnd);
}

/// The books of a running gateway: its database.
pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tracker: TaskTracker,
}

#[async_trait]
impl Books for Database {
    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn uncapped(&self, request_id: &str) -> Reservation {
        self.store.ledger().uncapped_call(request_id)
    }

    async fn reserve(&self, call: NewCall) -> Result<Reservation, Error> {
        let (id, now, payer) = (call.id.clone(), call.created_at, call.payer.clone());
        match self.store.reserve_call(call).await {
            Ok(reserved) => reserved.map_err(|exhausted| Error::budget(*exhausted, &payer, now)),
            Err(StoreError::Database { source, commit_unknown: true }) => {
                tracing::warn!(request_id = id, error = %source, "it is not known whether a call was reserved");
                self.tracker.spawn(release_late(self.store.clone(), id, now));
                // Whatever became of the reservation, the call was not made.
                Err(Error::unavailable(
                    "The database went away while the money for this request was reserved. The request was not sent to the \
                     provider, and nothing was charged. A retry is safe.",
                    5,
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&self, receipt: Receipt) -> Billing {
        self.store.ledger().receive_call(receipt)
    }

    async fn write(&self, end: CallEnd) {
        let (begun, mut failures) = (Instant::now(), 0);
        loop {
            match self.store.end_call(end.clone()).await {
                Ok(()) => return,
                Err(error) if error.is_final() => {
                    tracing::error!(request_id = end.id, %error, "the end of a call was not written");
                    return;
                }
                Err(error) if begun.elapsed() > WRITE_FOR => {
                    tracing::error!(request_id = end.id, %error, "the end of a call was not written");
                    return;
                }
                Err(error) => {
                    tracing::debug!(request_id = end.id, %error, "the end of a call is written again");
                    failures += 1;
                    let wait = exponential(Duration::from_millis(200), failures, Duration::from_secs(10));
                    tokio::time::sleep(jitter(wait, 20)).await;
                }
            }
        }
    }
}

/// Releases a reservation that may come to be although its caller was told that it did not: a commit that was lost may come
/// through late.
async fn release_late(store: Store, id: String, at: Millis) {
    for wait in LATE {
        tokio::time::sleep(wait).await;
        let end = CallEnd { id: id.clone(), reserved: true, end: MoneyEnd::Release, at, row: None };
        if let Err(error) = store.end_call(end).await {
            if error.is_final() {
                return;
            }
            tracing::debug!(request_id = id, %error, "a reservation that may have come late is released again");
        }
    }
}

/// What decides over the money of one call.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) request_id: String,
    pub(crate) payer: Payer,
    pub(crate) model: String,
    pub(crate) provider: String,
    pub(crate) price: Option<Price>,
    /// The most that it may cost, when a cap may stand above it.
    pub(crate) bound: Option<Nano>,
    /// The process that makes the call.
    pub(crate) owner: String,
    pub(crate) created_at: Millis,
    pub(crate) started: Instant,
    /// The longest that it may take.
    pub(crate) longest: Duration,
}

impl Terms {
    pub(crate) fn tariff(&self) -> Tariff {
        Tariff { price: self.price, bound: self.bound }
    }
}

/// What a call used and costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// What was used: the provider's count, or our estimate.
    pub usage: Usage,
    /// What it costs its payer; `None` for a model without a price.
    pub cost: Option<Nano>,
}

/// What decides over the cost of what was used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tariff {
    pub(crate) price: Option<Price>,
    /// What was reserved, below a cap: our own estimate never costs more.
    pub(crate) bound: Option<Nano>,
}

impl Tariff {
    /// What a call costs that used what the provider `counted`, or what we `estimated` where it did not count, counted nothing
    /// for something, or more than there can be.
    pub(crate) fn charge(&self, counted: Option<Usage>, estimated: Usage) -> Charged {
        let estimated = Usage { estimated: true, ..estimated };
        let Some(price) = self.price else { return Charged { usage: counted.unwrap_or(estimated), cost: None } };
        let cost = |usage: &Usage| price.cost(&Used::chat(usage)).filter(|cost| *cost <= Nano::MOST_PER_REQUEST);
        let own = cost(&estimated).unwrap_or_default();
        let own = self.bound.map_or(own, |bound| own.min(bound));
        match counted.map(|usage| (usage, cost(&usage))) {
            Some((usage, Some(cost))) if cost > Nano::ZERO || own == Nano::ZERO => Charged { usage, cost: Some(cost) },
            _ => Charged { usage: estimated, cost: Some(own) },
        }
    }
}

/// How a call ended, for the books.
pub(crate) enum Closing {
    /// The provider answered; `Charged` is what came of it.
    Answered(OpenCall, Charged),
    /// It did not: the receipt says whether it may bill.
    Refused(Receipt),
    /// It was given up on its way: it may bill.
    Abandoned,
}

/// The money of one call.
pub(crate) struct Bill {
    pub(crate) books: Arc<dyn Books>,
    pub(crate) terms: Terms,
}

impl Bill {
    /// The right to make the call.
    pub(crate) async fn reserve(&self) -> Result<Reservation, Error> {
        let terms = &self.terms;
        let Some(amount) = terms.bound else { return Ok(self.books.uncapped(&terms.request_id)) };
        let call = NewCall {
            id: terms.request_id.clone(),
            payer: terms.payer.clone(),
            amount,
            price: self.price_json(),
            created_at: terms.created_at,
            expires_at: terms.created_at.plus(terms.longest + GRACE),
            owner: terms.owner.clone(),
            model: terms.model.clone(),
            provider: terms.provider.clone(),
        };
        self.books.reserve(call).await
    }

    /// Writes how the call ended.
    pub(crate) async fn close(&self, closing: Closing, outcome: RequestOutcome, status: u16) {
        let (end, charged, outcome) = match closing {
            Closing::Answered(open, charged) => {
                let billing = self.books.receive(open.billed(charged.usage));
                debug_assert!(matches!(billing, Billing::Billed(_)), "it was answered");
                let cost = charged.cost.unwrap_or_default();
                // What broke off before the provider counted may have cost more than what came.
                let whole = outcome == RequestOutcome::Completed || !charged.usage.estimated;
                let end = match (outcome, cost, self.terms.bound) {
                    // Nothing came that costs anything.
                    (RequestOutcome::Completed, ..) => MoneyEnd::Charge(cost),
                    (_, Nano::ZERO, None) => MoneyEnd::Release,
                    (_, Nano::ZERO, Some(_)) => MoneyEnd::Uncertain,
                    _ if whole => MoneyEnd::Charge(cost),
                    _ => MoneyEnd::AtLeast(cost),
                };
                (end, charged, outcome)
            }
            Closing::Refused(receipt) => match self.books.receive(receipt) {
                Billing::NotSent | Billing::Refused => (MoneyEnd::Release, Charged::default(), outcome),
                Billing::MaybeBilled => (MoneyEnd::Uncertain, Charged::default(), RequestOutcome::Uncertain),
                Billing::Billed(usage) => {
                    let charged = self.terms.tariff().charge(Some(usage), usage);
                    (MoneyEnd::Charge(charged.cost.unwrap_or_default()), charged, outcome)
                }
            },
            Closing::Abandoned => {
                metrics::counter!("aig_provider_calls_total", "kind" => "chat", "billing" => "maybe_billed")
                    .increment(1);
                (MoneyEnd::Uncertain, Charged::default(), RequestOutcome::Uncertain)
            }
        };
        let terms = &self.terms;
        let has_used = charged != Charged::default();
        let used = if has_used { Used::chat(&charged.usage) } else { Used::default() };
        let row = RequestRow {
            id: terms.request_id.clone(),
            payer: terms.payer.clone(),
            job_id: None,
            model: terms.model.clone(),
            provider: terms.provider.clone(),
            status,
            outcome,
            created_at: terms.created_at,
            duration_ms: u64::try_from(terms.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            used,
            estimated: charged.usage.estimated,
            price: self.price_json(),
            cost: end.charge(),
        };
        let (id, reserved) = (terms.request_id.clone(), terms.bound.is_some());
        self.books.write(CallEnd { id, reserved, end, at: self.books.now(), row: Some(row) }).await;
    }

    fn price_json(&self) -> Option<String> {
        self.terms.price.and_then(|price| serde_json::to_string(&price).ok())
    }
}

#[cfg(test)]
mod tests {
    use aig_domain::price::{Pico, PriceList, Unit};

    use super::*;

    fn used(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage { input_tokens, output_tokens, ..Usage::default() }
    }

    #[test]
    fn an_answer_is_never_free_and_nonsense_is_never_charged() {
        let list = PriceList::default().with(Unit::Input, Pico(1000)).with(Unit::Output, Pico(2000));
        let price = Some(Price { list, margin_bp: 0 });
        let tariff = Tariff { price, bound: None };
        let of = |counted| tariff.charge(counted, used(10, 10));
        assert_eq!(of(Some(used(5, 5))), Charged { usage: used(5, 5), cost: Some(Nano(15)) });
        assert_eq!(of(Some(used(50, 500))).cost, Some(Nano(1050)), "what it says it used is charged in full");
        for counted in [None, Some(used(0, 0)), Some(used(u64::MAX, 1)), Some(used(1, u64::MAX))] {
            let charged = of(counted);
            assert_eq!((charged.cost, charged.usage.estimated), (Some(Nano(30)), true), "{counted:?}");
        }
        assert_eq!(tariff.charge(Some(used(0, 0)), used(0, 0)).cost, Some(Nano::ZERO), "nothing came");
        assert_eq!(Tariff::default().charge(Some(used(5, 5)), used(1, 1)), Charged { usage: used(5, 5), cost: None });
    }

    #[test]
    fn our_own_estimate_stays_below_what_was_reserved() {
        let list = PriceList::default().with(Unit::Input, Pico(1000)).with(Unit::Output, Pico(1000));
        let tariff = Tariff { price: Some(Price { list, margin_bp: 0 }), bound: Some(Nano(15)) };
        assert_eq!(tariff.charge(None, used(10, 10)).cost, Some(Nano(15)));
        assert_eq!(
            tariff.charge(Some(used(10, 10)), used(1, 1)).cost,
            Some(Nano(20)),
            "what a provider used is charged"
        );
    }
}
