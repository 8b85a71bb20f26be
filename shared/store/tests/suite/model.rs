//! The money operations against a model of them: random sequences of everything that can happen to a reservation, twice and late
//! included, with the counters compared after every step and the doctor asked now and then.
//!
//! `AIG_MODEL_SEQUENCES=10000 cargo test -p aig-store --test suite model` runs more of them than the 200 of every test run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aig_domain::caps::Payer;
use aig_domain::tenant::Change;
use aig_domain::{Millis, Month, Nano, id};
use aig_store::{CallEnd, MoneyEnd, NewCall, Raised, Refunded, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::Handle;

use crate::money::{call_at, ending};
use crate::support::{TestClock, TestStore, both};

both![every_sequence_of_money_operations_does_what_the_model_does];

/// One thing that happens. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Reserve {
        payer: usize,
        amount: i64,
    },
    Raise {
        call: usize,
        amount: i64,
    },
    End {
        call: usize,
        end: End,
        twice: bool,
    },
    /// The sweep and word of the call at the same moment.
    Late {
        call: usize,
        end: End,
    },
    Uncapped {
        payer: usize,
        amount: i64,
        twice: bool,
    },
    Cap {
        scope: usize,
        cap: Option<i64>,
    },
    Refund {
        call: usize,
        reference: u8,
        amount: i64,
    },
    NextMonth,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// What was used, which may be more than was reserved.
    Charge(i64),
    /// This, and nobody knows how much more.
    AtLeast(i64),
    Release,
    Uncertain,
}

impl End {
    fn money(self) -> MoneyEnd {
        match self {
            Self::Charge(charge) => MoneyEnd::Charge(Nano(charge)),
            Self::AtLeast(charge) => MoneyEnd::AtLeast(Nano(charge)),
            Self::Release => MoneyEnd::Release,
            Self::Uncertain => MoneyEnd::Uncertain,
        }
    }
}

const SCOPES: [&str; 6] = ["account", "sub_a", "sub_b", "key_a", "key_b", "tag"];
/// The scopes of each payer.
const PAYERS: [&[usize]; 4] = [&[0, 1, 3], &[0, 2, 4], &[0, 1, 3, 5], &[0, 4, 5]];

#[derive(Clone, Debug)]
struct ModelCall {
    payer: usize,
    month: usize,
    amount: i64,
    /// `None` while it is refused or not reserved at all.
    state: Option<State>,
    refunds: BTreeMap<u8, i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Held,
    Uncertain,
    /// What was charged, and what stays in doubt.
    Settled(i64, i64),
    Released,
}

/// The model: plain lists, and every counter summed up from them anew.
#[derive(Clone, Debug, Default)]
struct Model {
    calls: Vec<ModelCall>,
    caps: [Option<i64>; SCOPES.len()],
    month: usize,
    /// Whether the last reserve or raise was admitted.
    admitted: bool,
}

impl Model {
    /// Spent, held and uncertain of a scope in a month.
    fn counters(&self, scope: usize, month: usize) -> (i64, i64, i64) {
        let mut sums = (0, 0, 0);
        for call in self.calls.iter().filter(|call| call.month == month && PAYERS[call.payer].contains(&scope)) {
            match call.state {
                Some(State::Held) => sums.1 += call.amount,
                Some(State::Uncertain) => sums.2 += call.amount,
                Some(State::Settled(charge, doubt)) => {
                    sums.0 += charge - call.refunds.values().sum::<i64>();
                    sums.2 += doubt;
                }
                Some(State::Released) | None => {}
            }
        }
        sums
    }

    fn fits(&self, payer: usize, month: usize, amount: i64) -> bool {
        PAYERS[payer].iter().all(|scope| {
            let (spent, held, uncertain) = self.counters(*scope, month);
            let used = spent + held + uncertain;
            self.caps[*scope].is_none_or(|cap| used < cap && used + amount <= cap)
        })
    }

    fn call(&self, index: usize) -> Option<usize> {
        (!self.calls.is_empty()).then(|| index % self.calls.len())
    }

    fn push(&mut self, payer: usize, amount: i64, state: Option<State>) {
        let month = self.month;
        self.calls.push(ModelCall { payer, month, amount, state, refunds: BTreeMap::new() });
    }

    fn step(mut self, step: &Step) -> Self {
        match *step {
            Step::Reserve { payer, amount } => {
                self.admitted = self.fits(payer, self.month, amount);
                let state = self.admitted.then_some(State::Held);
                self.push(payer, amount, state);
            }
            Step::Raise { call, amount } => {
                if let Some(call) = self.call(call) {
                    let ModelCall { payer, month, state, .. } = self.calls[call];
                    self.admitted = state == Some(State::Held) && self.fits(payer, month, amount);
                    self.calls[call].amount += if self.admitted { amount } else { 0 };
                }
            }
            Step::End { call, end, .. } | Step::Late { call, end } => {
                if let Some(call) = self.call(call) {
                    let call = &mut self.calls[call];
                    call.state = match (call.state, end) {
                        (Some(State::Held), End::Uncertain) => Some(State::Uncertain),
                        (Some(State::Held | State::Uncertain), End::Charge(charge)) => Some(State::Settled(charge, 0)),
                        (Some(State::Held | State::Uncertain), End::AtLeast(charge)) => {
                            Some(State::Settled(charge, (call.amount - charge).max(0)))
                        }
                        (Some(State::Held | State::Uncertain), End::Release) => Some(State::Released),
                        (state, _) => state,
                    };
                }
            }
            Step::Uncapped { payer, amount, .. } => self.push(payer, 0, Some(State::Settled(amount, 0))),
            Step::Cap { scope, cap } => self.caps[scope] = cap,
            Step::Refund { call, reference, amount } => {
                if let Some(call) = self.call(call) {
                    let call = &mut self.calls[call];
                    if let Some(State::Settled(charge, _)) = call.state {
                        let left = charge - call.refunds.values().sum::<i64>();
                        if amount <= left {
                            call.refunds.entry(reference).or_insert(amount);
                        }
                    }
                }
            }
            Step::NextMonth => self.month += 1,
        }
        self
    }
}

struct Reference;

impl ReferenceStateMachine for Reference {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::default()).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Step> {
        let (payer, call, amount) = (0..PAYERS.len(), any::<usize>(), 0..40_i64);
        let end = prop_oneof![
            4 => (0..60_i64).prop_map(End::Charge),
            2 => (0..60_i64).prop_map(End::AtLeast),
            2 => Just(End::Release),
            2 => Just(End::Uncertain)
        ];
        prop_oneof![
            8 => (payer.clone(), amount.clone()).prop_map(|(payer, amount)| Step::Reserve { payer, amount }),
            2 => (call, amount.clone()).prop_map(|(call, amount)| Step::Raise { call, amount }),
            8 => (call, end.clone(), any::<bool>()).prop_map(|(call, end, twice)| Step::End { call, end, twice }),
            2 => (call, end).prop_map(|(call, end)| Step::Late { call, end }),
            2 => (payer, amount.clone(), any::<bool>())
                .prop_map(|(payer, amount, twice)| Step::Uncapped { payer, amount, twice }),
            3 => (0..SCOPES.len(), proptest::option::weighted(0.8, 0..120_i64))
                .prop_map(|(scope, cap)| Step::Cap { scope, cap }),
            2 => (call, 0..3_u8, amount).prop_map(|(call, reference, amount)| Step::Refund { call, reference, amount }),
            1 => Just(Step::NextMonth),
        ]
        .boxed()
    }

    fn apply(state: Model, step: &Step) -> Model {
        state.step(step)
    }
}

thread_local! {
    static TEST: RefCell<Option<(Store, Arc<TestClock>)>> = const { RefCell::new(None) };
}

/// The real ledger, in a tenant of its own.
struct Real {
    store: Store,
    clock: Arc<TestClock>,
    account: String,
    calls: Vec<NewCall>,
    months: Vec<Month>,
}

impl Real {
    fn scope(&self, scope: usize) -> String {
        match SCOPES[scope] {
            "account" => self.account.clone(),
            "tag" => format!("tag:{}:t", self.account),
            other => format!("{other}:{}", self.account),
        }
    }

    fn payer(&self, payer: usize) -> Payer {
        let has = |wanted: usize| PAYERS[payer].contains(&wanted);
        let of = |scopes: [usize; 2]| scopes.into_iter().find(|scope| has(*scope)).map(|scope| self.scope(scope));
        Payer {
            account_id: self.account.clone(),
            sub_account_id: of([1, 2]),
            key_id: of([3, 4]).unwrap(),
            tag: has(5).then(|| "t".to_owned()),
        }
    }

    fn call(&self, payer: usize, amount: i64) -> NewCall {
        call_at(aig_domain::Clock::now(&*self.clock), self.payer(payer), amount)
    }

    fn known(&self, index: usize) -> Option<NewCall> {
        (!self.calls.is_empty()).then(|| self.calls[index % self.calls.len()].clone())
    }

    async fn step(&mut self, model: &Model, step: &Step) {
        match *step {
            Step::Reserve { payer, amount } => {
                let call = self.call(payer, amount);
                let admitted = self.store.reserve_call(call.clone()).await.unwrap().is_ok();
                assert_eq!(admitted, model.admitted, "admission");
                self.calls.push(call);
            }
            Step::Raise { call, amount } => {
                if let Some(call) = self.known(call) {
                    let raised = self.store.raise_reservation(&call.id, Nano(amount)).await.unwrap();
                    assert_eq!(raised == Raised::Yes, model.admitted, "{raised:?}");
                }
            }
            Step::End { call, end, twice } => {
                if let Some(call) = self.known(call) {
                    // Without a usage row: which of several ends wrote it says nothing about the ledger.
                    let end = CallEnd { row: None, ..ending(&call, end.money(), true) };
                    self.end(end, twice).await;
                }
            }
            Step::Late { call, end } => {
                if let Some(call) = self.known(call) {
                    let of = |end| self.store.end_call(CallEnd { row: None, ..ending(&call, end, true) });
                    let (sweep, end) = tokio::join!(of(MoneyEnd::Uncertain), of(end.money()));
                    sweep.and(end).unwrap();
                }
            }
            Step::Uncapped { payer, amount, twice } => {
                let call = self.call(payer, 0);
                self.end(ending(&call, MoneyEnd::Charge(Nano(amount)), false), twice).await;
                self.calls.push(call);
            }
            Step::Cap { scope, cap } => {
                let change = cap.map_or(Change::Clear, |cap| Change::Set(Nano(cap)));
                self.store.set_cap(&self.scope(scope), &self.account, &change).await.unwrap();
            }
            Step::Refund { call, reference, amount } => {
                if let Some(call) = self.known(call) {
                    let refunded = self.store.refund(&call.id, &reference.to_string(), Nano(amount)).await.unwrap();
                    let again = self.store.refund(&call.id, &reference.to_string(), Nano(amount)).await.unwrap();
                    assert!(again == refunded || (refunded, again) == (Refunded::Yes, Refunded::Before), "{again:?}");
                }
            }
            Step::NextMonth => {
                let month = *self.months.last().unwrap();
                let now = aig_domain::Clock::now(&*self.clock);
                self.clock.forward(now.until(month.ends()));
                self.months.push(month.next());
            }
        }
    }

    async fn end(&self, end: CallEnd, twice: bool) {
        if twice {
            let (one, other) = tokio::join!(self.store.end_call(end.clone()), self.store.end_call(end));
            one.and(other).unwrap();
        } else {
            self.store.end_call(end).await.unwrap();
        }
    }

    async fn check(&self, model: &Model) {
        for (number, month) in self.months.iter().enumerate() {
            for (scope, name) in SCOPES.iter().enumerate() {
                let balance = self.store.balance(&self.scope(scope), *month).await.unwrap();
                let real = (balance.spent.0, balance.held.0, balance.uncertain.0);
                assert_eq!(real, model.counters(scope, number), "{name} in {month}");
            }
        }
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    Handle::current().block_on(future)
}

struct Ledger;

impl StateMachineTest for Ledger {
    type SystemUnderTest = Real;
    type Reference = Reference;

    fn init_test(_: &Model) -> Real {
        let (store, clock) = TEST.with_borrow(|test| test.clone().unwrap());
        let now = aig_domain::Clock::now(&*clock);
        Real { store, account: id::new("acc_", now), calls: Vec::new(), months: vec![Month::of(now)], clock }
    }

    fn apply(mut real: Real, model: &Model, step: Step) -> Real {
        wait(real.step(model, &step));
        wait(real.check(model));
        real
    }

    fn teardown(real: Real, _: Model) {
        // Each time it reads everything that all sequences wrote.
        if ENDED.fetch_add(1, Ordering::Relaxed).is_multiple_of(DOCTOR_EVERY) {
            wait(ask_the_doctor(&real.store));
        }
    }
}

static ENDED: AtomicUsize = AtomicUsize::new(0);
const DOCTOR_EVERY: usize = 10;

async fn ask_the_doctor(store: &Store) {
    // Nothing is late: months go by here in no time.
    assert_eq!(store.doctor(Millis(0)).await.unwrap(), []);
}

async fn every_sequence_of_money_operations_does_what_the_model_does(t: &TestStore) {
    let cases = std::env::var("AIG_MODEL_SEQUENCES").map_or(200, |text| text.parse().unwrap());
    let (store, clock) = (t.store.clone(), Arc::clone(&t.clock));
    tokio::task::block_in_place(|| {
        TEST.set(Some((store, clock)));
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new(config.clone());
        let strategy = Reference::sequential_strategy(1..25);
        let steps = AtomicUsize::new(0);
        let ran = runner.run(&strategy, |(initial, transitions, seen)| {
            steps.fetch_add(transitions.len(), Ordering::Relaxed);
            Ledger::test_sequential(config.clone(), initial, transitions, seen);
            Ok(())
        });
        TEST.set(None);
        ran.unwrap();
        wait(ask_the_doctor(&t.store));
        assert!(steps.into_inner() > cases as usize, "the sequences are not empty");
    });
}
