//! Caps, charges and counters: what `shared/domain/src/caps.rs` decides is what the database holds.

use std::time::Duration;

use aig_domain::caps::{Payer, ScopeKind};
use aig_domain::job::{ErrorCode, JobError, Outcome};
use aig_domain::price::Used;
use aig_domain::tenant::Change;
use aig_domain::{Millis, Month, Nano, id};
use aig_store::{
    Accepted, CallEnd, JobEndTarget, MoneyEnd, NewCall, Raised, Refunded, RequestOutcome, RequestRow, StepKind, Store,
};
use futures_util::future::join_all;

use crate::support::{TestStore, both, completed, job_of, payer};

both![
    cap_holds,
    the_first_requests_of_a_scope_meet_its_cap_too,
    every_scope_of_a_request_counts_it,
    an_end_counts_once_and_a_late_one_still_counts,
    a_charge_is_not_lost_to_a_sweep_beside_it,
    what_broke_off_keeps_the_rest_in_doubt,
    a_call_without_a_cap_is_charged_once,
    refused_costs_nothing,
    one_charge_per_result,
    sums_agree,
    a_charge_belongs_to_the_month_of_its_admission,
    months_turn_under_load,
    a_dead_process_leaves_its_calls_uncertain,
    more_is_reserved_only_under_the_cap,
    what_is_given_back_was_charged,
    the_doctor_finds_what_is_wrong,
];

/// A call of `payer` that may cost `amount`.
pub fn call(t: &TestStore, payer: &Payer, amount: i64) -> NewCall {
    call_at(t.now(), payer.clone(), amount)
}

/// The same, at some time.
pub fn call_at(now: Millis, payer: Payer, amount: i64) -> NewCall {
    NewCall {
        id: id::new("req_", now),
        payer,
        amount: Nano(amount),
        price: None,
        created_at: now,
        expires_at: now.plus(Duration::from_mins(12)),
        owner: "api_1".into(),
        model: "sandbox/chat".into(),
        provider: "sandbox".into(),
    }
}

/// The end of a call with its usage row.
pub fn ending(call: &NewCall, end: MoneyEnd, reserved: bool) -> CallEnd {
    let row = RequestRow {
        id: call.id.clone(),
        payer: call.payer.clone(),
        job_id: None,
        model: "sandbox/chat".into(),
        provider: "sandbox".into(),
        status: 200,
        outcome: RequestOutcome::Completed,
        created_at: call.created_at,
        duration_ms: 3,
        used: Used { input_tokens: 1, ..Used::default() },
        estimated: false,
        price: None,
        cost: end.charge(),
    };
    CallEnd { id: call.id.clone(), reserved, end, at: call.created_at, row: Some(row) }
}

/// Reserves for `call`, which fits.
async fn reserve(t: &TestStore, call: &NewCall) {
    drop(t.store.reserve_call(call.clone()).await.unwrap().unwrap());
}

async fn is_well(t: &TestStore) {
    let findings = t.store.doctor(t.now().minus(Duration::from_mins(5))).await.unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Spent, held and uncertain of a scope this month.
async fn standing(t: &TestStore, scope: &str) -> (i64, i64, i64) {
    let balance = t.store.balance(scope, Month::of(t.now())).await.unwrap();
    (balance.spent.0, balance.held.0, balance.uncertain.0)
}

async fn cap_holds(t: &TestStore) {
    let other = t.reopen().await;
    for k in [0_i64, 1, 7, 50] {
        let payer = payer(&format!("acc_{k}"));
        t.store.set_cap(&payer.key_id, &payer.account_id, &Change::Set(Nano(k * 10))).await.unwrap();
        let stores: [&Store; 2] = [&t.store, &other];
        let calls: Vec<NewCall> = (0..60).map(|_| call(t, &payer, 10)).collect();
        let wishes = calls.iter().enumerate().map(|(n, call)| stores[n % 2].reserve_call(call.clone()));
        let answers: Vec<_> = join_all(wishes).await.into_iter().map(Result::unwrap).collect();
        let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert_eq!(answers.len() - refused.len(), usize::try_from(k).unwrap());
        assert!(refused.iter().all(|no| no.scope.kind == ScopeKind::Key && no.balance.used() == Nano(k * 10)));
        let ends = calls.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        let ends = ends.map(|(call, _)| t.store.end_call(ending(call, MoneyEnd::Charge(Nano(10)), true)));
        join_all(ends).await.into_iter().for_each(Result::unwrap);
        assert_eq!(standing(t, &payer.account_id).await, (k * 10, 0, 0));
        assert!(t.store.reserve_call(call(t, &payer, 1)).await.unwrap().is_err(), "the cap is reached");
    }
    is_well(t).await;
    other.close().await;
}

async fn the_first_requests_of_a_scope_meet_its_cap_too(t: &TestStore) {
    let others = [t.reopen().await, t.reopen().await];
    for round in 0..10 {
        let payer = Payer { tag: Some(format!("tag-{round}")), ..payer("acc_1") };
        let scope = aig_domain::caps::Scope::tag("acc_1", &format!("tag-{round}"));
        t.store.set_cap(&scope.id, "acc_1", &Change::Set(Nano(25))).await.unwrap();
        let wishes = (0..9).map(|n| others[n % 2].reserve_call(call(t, &payer, 10)));
        let admitted = join_all(wishes).await.into_iter().filter(|answer| answer.as_ref().unwrap().is_ok()).count();
        assert_eq!(admitted, 2);
    }
    is_well(t).await;
    for other in others {
        other.close().await;
    }
}

async fn every_scope_of_a_request_counts_it(t: &TestStore) {
    let payer = Payer {
        account_id: "acc_1".into(),
        sub_account_id: Some("sa_1".into()),
        key_id: "key_1".into(),
        tag: Some("a:b".into()),
    };
    let first = call(t, &payer, 30);
    reserve(t, &first).await;
    for scope in payer.scopes() {
        assert_eq!(standing(t, &scope.id).await, (0, 30, 0), "{scope}");
    }
    t.store.end_call(ending(&first, MoneyEnd::Charge(Nano(12)), true)).await.unwrap();
    for scope in payer.scopes() {
        assert_eq!(standing(t, &scope.id).await, (12, 0, 0), "{scope}");
        // Each of them can refuse alone, and says that it did.
        t.store.set_cap(&scope.id, "acc_1", &Change::Set(Nano(20))).await.unwrap();
        let refused = t.store.reserve_call(call(t, &payer, 9)).await.unwrap().unwrap_err();
        assert_eq!((&refused.scope, refused.balance.left(), refused.wanted), (&scope, Some(Nano(8)), Nano(9)));
        t.store.set_cap(&scope.id, "acc_1", &Change::Clear).await.unwrap();
    }
    is_well(t).await;
}

async fn an_end_counts_once_and_a_late_one_still_counts(t: &TestStore) {
    let payer = payer("acc_1");
    let one = call(t, &payer, 10);
    reserve(t, &one).await;
    for end in [MoneyEnd::Uncertain, MoneyEnd::Uncertain] {
        t.store.end_call(ending(&one, end, true)).await.unwrap();
        assert_eq!(standing(t, "acc_1").await, (0, 0, 10));
    }
    for end in [MoneyEnd::Charge(Nano(4)), MoneyEnd::Charge(Nano(4)), MoneyEnd::Release, MoneyEnd::Uncertain] {
        t.store.end_call(CallEnd { row: None, ..ending(&one, end, true) }).await.unwrap();
        assert_eq!(standing(t, "acc_1").await, (4, 0, 0));
    }
    let other = call(t, &payer, 10);
    reserve(t, &other).await;
    let ends =
        [MoneyEnd::Release, MoneyEnd::Charge(Nano(9))].map(|end| CallEnd { row: None, ..ending(&other, end, true) });
    join_all(ends.map(|end| t.store.end_call(end))).await.into_iter().for_each(Result::unwrap);
    let (spent, held, uncertain) = standing(t, "acc_1").await;
    assert!([4, 13].contains(&spent) && held == 0 && uncertain == 0, "one of the two counts");
}

async fn a_charge_is_not_lost_to_a_sweep_beside_it(t: &TestStore) {
    for _ in 0..10 {
        let one = NewCall { owner: "nobody".into(), ..call(t, &payer("acc_1"), 10) };
        reserve(t, &one).await;
        let (swept, ended) =
            tokio::join!(t.store.end_overdue_calls(), t.store.end_call(ending(&one, MoneyEnd::Charge(Nano(4)), true)));
        swept.unwrap();
        ended.unwrap();
    }
    assert_eq!(standing(t, "acc_1").await, (40, 0, 0));
    is_well(t).await;
}

async fn what_broke_off_keeps_the_rest_in_doubt(t: &TestStore) {
    let one = call(t, &payer("acc_1"), 10);
    reserve(t, &one).await;
    t.store.end_call(ending(&one, MoneyEnd::AtLeast(Nano(4)), true)).await.unwrap();
    assert_eq!(standing(t, "acc_1").await, (4, 0, 6), "no more than that is free again");
    t.store.end_call(CallEnd { row: None, ..ending(&one, MoneyEnd::Uncertain, true) }).await.unwrap();
    assert_eq!(standing(t, "acc_1").await, (4, 0, 6));
    let uncapped = call(t, &payer("acc_2"), 0);
    t.store.end_call(ending(&uncapped, MoneyEnd::AtLeast(Nano(4)), false)).await.unwrap();
    assert_eq!(standing(t, "acc_2").await, (4, 0, 0));
    is_well(t).await;
}

async fn a_call_without_a_cap_is_charged_once(t: &TestStore) {
    let payer = payer("acc_1");
    let calls: Vec<NewCall> = (0..5).map(|_| call(t, &payer, 0)).collect();
    for _ in 0..3 {
        let ends = calls.iter().map(|call| t.store.end_call(ending(call, MoneyEnd::Charge(Nano(7)), false)));
        join_all(ends).await.into_iter().for_each(Result::unwrap);
    }
    assert_eq!(standing(t, "acc_1").await, (35, 0, 0));
    t.store.end_call(ending(&call(t, &payer, 0), MoneyEnd::Release, false)).await.unwrap();
    assert_eq!(standing(t, "key_acc_1").await, (35, 0, 0));
    is_well(t).await;
}

async fn refused_costs_nothing(t: &TestStore) {
    t.account("acc_1").await;
    t.store.set_cap("acc_1", "acc_1", &Change::Set(Nano(19))).await.unwrap();
    for _ in 0..2 {
        let twins = [t.keyed_job("acc_1", "k", "body"), t.keyed_job("acc_1", "k", "body")];
        for answer in join_all(twins.map(|job| t.store.accept_job(job))).await {
            let Accepted::Refused(no) = answer.unwrap() else { panic!("it does not fit") };
            assert_eq!((no.scope.kind, no.wanted, no.balance.left()), (ScopeKind::Account, Nano(20), Some(Nano(19))));
        }
    }
    assert!(t.claim(9).await.is_empty());
    assert_eq!(standing(t, "acc_1").await, (0, 0, 0));
    t.store.set_cap("acc_1", "acc_1", &Change::Set(Nano(20))).await.unwrap();
    let again = t.store.accept_job(t.keyed_job("acc_1", "k", "another body")).await.unwrap();
    assert!(matches!(again, Accepted::New(_)), "the key is free again: {again:?}");
    is_well(t).await;
}

async fn one_charge_per_result(t: &TestStore) {
    let mut expected = 0;
    for (n, outcome) in [
        completed(),
        Outcome::Failed(JobError::new(ErrorCode::ProviderError, "no")),
        Outcome::Failed(JobError::new(ErrorCode::ProviderOutcomeUnknown, "?")),
        completed(),
    ]
    .into_iter()
    .enumerate()
    {
        t.accept("acc_1").await;
        let claimed = t.claim(1).await.remove(0);
        t.step(&claimed, StepKind::Submitting).await;
        let job = job_of(&claimed);
        let end = || t.end(JobEndTarget::Lease(claimed.lease.clone()), job, &outcome);
        let ends = [t.store.end_job(end()), t.store.end_job(end())];
        let won = join_all(ends).await.into_iter().filter(|won| won.as_ref().unwrap().is_some()).count();
        assert_eq!(won, 1);
        expected += if matches!(outcome, Outcome::Completed(_)) { 20 } else { 0 };
        let uncertain = if n >= 2 { 20 } else { 0 };
        assert_eq!(standing(t, "acc_1").await, (expected, 0, uncertain), "{outcome:?}");
    }
    is_well(t).await;
}

async fn sums_agree(t: &TestStore) {
    let payers: Vec<Payer> = (0..3)
        .map(|n| Payer { sub_account_id: Some(format!("sa_{n}")), key_id: format!("key_{n}"), ..payer("acc_1") })
        .collect();
    let calls: Vec<NewCall> = (0..60).map(|n| call(t, &payers[n % 3], 10)).collect();
    join_all(calls.iter().map(|call| t.store.reserve_call(call.clone()))).await.into_iter().for_each(|answer| {
        drop(answer.unwrap().unwrap());
    });
    let ends = calls.iter().enumerate().map(|(n, call)| {
        let end = [MoneyEnd::Charge(Nano(i64::try_from(n).unwrap())), MoneyEnd::Release, MoneyEnd::Uncertain][n / 20];
        t.store.end_call(ending(call, end, true))
    });
    join_all(ends).await.into_iter().for_each(Result::unwrap);
    let account = standing(t, "acc_1").await;
    assert_eq!(account, ((0..20).sum(), 0, 200));
    for kind in ["sa", "key"] {
        let mut sum = (0, 0, 0);
        for n in 0..3 {
            let (spent, held, uncertain) = standing(t, &format!("{kind}_{n}")).await;
            sum = (sum.0 + spent, sum.1 + held, sum.2 + uncertain);
        }
        assert_eq!(sum, account, "{kind}");
    }
    is_well(t).await;
}

async fn a_charge_belongs_to_the_month_of_its_admission(t: &TestStore) {
    let payer = payer("acc_1");
    t.store.set_cap("acc_1", "acc_1", &Change::Set(Nano(10))).await.unwrap();
    let month = Month::of(t.now());
    let before = call(t, &payer, 10);
    reserve(t, &before).await;
    assert!(t.store.reserve_call(call(t, &payer, 10)).await.unwrap().is_err());
    t.clock.forward(t.now().until(month.ends()));
    let after = call(t, &payer, 10);
    reserve(t, &after).await;
    assert!(t.store.reserve_call(call(t, &payer, 1)).await.unwrap().is_err(), "the new month has its cap, too");
    t.store.end_call(ending(&before, MoneyEnd::Charge(Nano(8)), true)).await.unwrap();
    assert_eq!(standing(t, "acc_1").await, (0, 10, 0));
    let old = t.store.balance("acc_1", month).await.unwrap();
    assert_eq!((old.spent, old.held), (Nano(8), Nano::ZERO));
    is_well(t).await;
}

async fn months_turn_under_load(t: &TestStore) {
    // 2027-01-30, so that February follows; then two more ends of months.
    t.clock.forward(t.now().until(Month::parse("2027-01").unwrap().ends().minus(Duration::from_hours(30))));
    let payer = payer("acc_1");
    t.store.set_cap("acc_1", "acc_1", &Change::Set(Nano(400))).await.unwrap();
    let mut months = vec![Month::of(t.now())];
    let mut admitted: Vec<(NewCall, i64)> = Vec::new();
    while months.len() < 4 {
        let end = months[months.len() - 1].ends();
        // Up to the end of the month and over it, in steps smaller than what is admitted at once.
        t.clock.forward(t.now().until(end).saturating_sub(Duration::from_millis(120)));
        for _ in 0..8 {
            let calls: Vec<NewCall> = (0..20).map(|_| call(t, &payer, 10)).collect();
            let wishes = join_all(calls.iter().map(|call| t.store.reserve_call(call.clone())));
            let late: Vec<_> = admitted.iter().rev().take(10).cloned().collect();
            let settles = join_all(late.into_iter().map(async |(call, charge)| {
                t.store.end_call(CallEnd { row: None, ..ending(&call, MoneyEnd::Charge(Nano(charge)), true) }).await
            }));
            let (answers, settled) = tokio::join!(wishes, settles);
            settled.into_iter().for_each(Result::unwrap);
            let fit = calls.into_iter().zip(answers).filter(|(_, answer)| answer.as_ref().unwrap().is_ok());
            admitted.extend(fit.map(|(call, _)| (call, 10)));
            t.clock.forward(Duration::from_millis(30));
        }
        months.push(Month::of(t.now()));
    }
    for month in &months {
        let balance = t.store.balance("acc_1", *month).await.unwrap();
        let of_month = admitted.iter().filter(|(call, _)| Month::of(call.created_at) == *month).count();
        assert_eq!(balance.used(), Nano(10 * i64::try_from(of_month).unwrap()), "{month}");
        assert!(of_month == 40 || *month == months[0] && of_month > 0, "{of_month} in {month}");
    }
    // Most of them were never ended.
    while t.store.end_overdue_calls().await.unwrap() > 0 {}
    is_well(t).await;
}

async fn a_dead_process_leaves_its_calls_uncertain(t: &TestStore) {
    let (payer, lease) = (payer("acc_1"), Duration::from_mins(1));
    t.store.register_process("api_1", aig_store::Role::Api, lease).await.unwrap();
    let one = call(t, &payer, 10);
    reserve(t, &one).await;
    assert_eq!(t.store.end_overdue_calls().await.unwrap(), 0, "it is under way");
    t.clock.forward(Duration::from_secs(61));
    t.store.register_process("api_2", aig_store::Role::Api, lease).await.unwrap();
    assert_eq!(t.store.end_overdue_calls().await.unwrap(), 1);
    assert_eq!(standing(t, "acc_1").await, (0, 0, 10));
    let slow = NewCall { owner: "api_2".into(), ..call(t, &payer, 5) };
    reserve(t, &slow).await;
    t.clock.forward(Duration::from_mins(13));
    assert_eq!(t.store.end_overdue_calls().await.unwrap(), 1);
    t.store.end_call(ending(&slow, MoneyEnd::Charge(Nano(5)), true)).await.unwrap();
    assert_eq!(standing(t, "acc_1").await, (5, 0, 10), "word that comes late counts");
    is_well(t).await;
}

async fn more_is_reserved_only_under_the_cap(t: &TestStore) {
    let payer = payer("acc_1");
    t.store.set_cap("acc_1", "acc_1", &Change::Set(Nano(25))).await.unwrap();
    let one = call(t, &payer, 10);
    reserve(t, &one).await;
    assert_eq!(t.store.raise_reservation(&one.id, Nano(10)).await.unwrap(), Raised::Yes);
    let refused = t.store.raise_reservation(&one.id, Nano(10)).await.unwrap();
    assert!(matches!(refused, Raised::Refused(no) if no.balance.left() == Some(Nano(5))));
    assert_eq!(standing(t, "acc_1").await, (0, 20, 0));
    t.store.end_call(ending(&one, MoneyEnd::Charge(Nano(20)), true)).await.unwrap();
    assert_eq!(t.store.raise_reservation(&one.id, Nano(1)).await.unwrap(), Raised::NotHeld);
    assert_eq!(t.store.raise_reservation("req_none", Nano(1)).await.unwrap(), Raised::NotHeld);
    assert_eq!(standing(t, "acc_1").await, (20, 0, 0));
    is_well(t).await;
}

async fn what_is_given_back_was_charged(t: &TestStore) {
    let one = call(t, &payer("acc_1"), 10);
    assert_eq!(t.store.refund(&one.id, "r1", Nano(1)).await.unwrap(), Refunded::NoCharge);
    reserve(t, &one).await;
    t.store.end_call(ending(&one, MoneyEnd::Charge(Nano(10)), true)).await.unwrap();
    t.clock.forward(Duration::from_hours(24 * 40));
    assert_eq!(t.store.refund(&one.id, "r1", Nano(6)).await.unwrap(), Refunded::Yes);
    assert_eq!(t.store.refund(&one.id, "r1", Nano(6)).await.unwrap(), Refunded::Before);
    assert_eq!(t.store.refund(&one.id, "r2", Nano(5)).await.unwrap(), Refunded::TooMuch(Nano(4)));
    assert_eq!(t.store.refund(&one.id, "r3", Nano(-1)).await.unwrap(), Refunded::TooMuch(Nano(4)));
    let refunds = (0..4).map(|n| t.store.refund(&one.id, ["a", "b", "c", "d"][n], Nano(3)));
    let given = join_all(refunds).await.into_iter().filter(|done| *done.as_ref().unwrap() == Refunded::Yes).count();
    assert_eq!(given, 1);
    let balance = t.store.balance("acc_1", Month::of(one.created_at)).await.unwrap();
    assert_eq!(balance.spent, Nano(1), "in the period of the charge");
    is_well(t).await;
}

async fn the_doctor_finds_what_is_wrong(t: &TestStore) {
    let job = t.accept("acc_1").await;
    let one = call(t, &payer("acc_1"), 10);
    reserve(t, &one).await;
    t.store.end_call(ending(&one, MoneyEnd::Charge(Nano(10)), true)).await.unwrap();
    is_well(t).await;
    for (wrong, right, rule) in [
        (
            "UPDATE budget_periods SET spent = spent + 1 WHERE kind = 'tag'",
            "UPDATE budget_periods SET spent = spent - 1 WHERE kind = 'tag'",
            "counters",
        ),
        (
            "UPDATE reservations SET state = 'released' WHERE kind = 'job'",
            "UPDATE reservations SET state = 'held' WHERE kind = 'job'",
            "holds its reservation",
        ),
        ("UPDATE ledger SET amount = 9", "UPDATE ledger SET amount = 10", "usage row"),
        ("UPDATE jobs SET deadline_at = 1", "UPDATE jobs SET deadline_at = 9000000000000", "deadline"),
        ("UPDATE tasks SET state = 'running', worker = 'gone'", "UPDATE tasks SET state = 'ready'", "alive"),
        ("UPDATE tasks SET state = 'done'", "UPDATE tasks SET state = 'ready'", "has a task"),
    ] {
        t.execute(wrong).await;
        let findings = t.store.doctor(t.now().minus(Duration::from_mins(5))).await.unwrap();
        assert!(findings.iter().any(|finding| finding.rule.contains(rule)), "{wrong}: {findings:#?}");
        t.execute(right).await;
        is_well(t).await;
    }
    assert_eq!(job.price, Nano(20));
}
