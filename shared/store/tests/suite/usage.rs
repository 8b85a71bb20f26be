//! What the reading side says about money is what was charged.

use std::time::Duration;

use aig_domain::caps::{Payer, Scope};
use aig_domain::price::Used;
use aig_domain::tenant::Change;
use aig_domain::{Month, Nano, id};
use aig_store::{
    CallEnd, JobEndTarget, JobsOf, MoneyEnd, NewCall, Refunded, RequestDetail, RequestFilter, RequestOutcome,
    RequestRow, SeenRequest, UsageLine,
};

use crate::money::{call, ending};
use crate::support::{TestStore, both, completed, job_of};

both![
    the_lines_of_a_month_add_up_to_the_account,
    a_sub_account_reads_its_own_rows,
    days_and_models_of_a_sub_account,
    pages_of_requests_are_filtered,
    a_request_with_its_money,
    a_request_under_way_is_known_by_its_reservation,
];

/// A request of the sub-account `sub` of `acc_1`, or of the account itself.
fn payer(sub: Option<&str>, tag: Option<&str>) -> Payer {
    Payer {
        account_id: "acc_1".into(),
        sub_account_id: sub.map(Into::into),
        key_id: format!("key_{}", sub.unwrap_or("acc_1")),
        tag: tag.map(Into::into),
    }
}

/// Charges a request.
async fn charge(t: &TestStore, payer: &Payer, cost: i64, model: &str) -> NewCall {
    let one = call(t, payer, 0);
    let mut end = ending(&one, MoneyEnd::Charge(Nano(cost)), false);
    let used = Used { input_tokens: 10, output_tokens: 3, requests: 1, ..Used::default() };
    end.row = end.row.map(|row| RequestRow { model: model.into(), used, ..row });
    t.store.end_call(end).await.unwrap();
    one
}

fn lines(lines: &[UsageLine]) -> Vec<(Option<&str>, i64, i64)> {
    lines.iter().map(|line| (line.id.as_deref(), line.requests, line.cost.0)).collect()
}

async fn the_lines_of_a_month_add_up_to_the_account(t: &TestStore) {
    let month = Month::of(t.now());
    assert!(t.store.usage_by_tag("acc_1", month).await.unwrap().lines.is_empty());
    for (sub, tag, cost) in
        [(None, Some("a:é"), 5), (Some("sa_1"), Some("a:é"), 6), (Some("sa_2"), Some("b"), 20), (None, None, 7)]
    {
        charge(t, &payer(sub, tag), cost, "m").await;
    }
    charge(t, &Payer { account_id: "acc_10".into(), ..payer(None, Some("a:é")) }, 1000, "m").await;
    t.store.set_cap(&Scope::tag("acc_1", "b").id, "acc_1", &Change::Set(Nano(99))).await.unwrap();
    // What is only promised is no use yet.
    let held = call(t, &payer(Some("sa_3"), Some("held")), 1);
    drop(t.store.reserve_call(held).await.unwrap().unwrap());
    let tags = t.store.usage_by_tag("acc_1", month).await.unwrap();
    assert_eq!(lines(&tags.lines), [(Some("b"), 1, 20), (Some("a:é"), 2, 11), (None, 1, 7)]);
    assert_eq!((tags.lines[0].cap, tags.lines[1].cap, tags.has_more), (Some(Nano(99)), None, false));
    let account = t.store.balance("acc_1", month).await.unwrap();
    assert_eq!(tags.lines.iter().map(|line| line.cost.0).sum::<i64>(), account.spent.0);
    let subs = t.store.usage_by_sub_account("acc_1", None, month).await.unwrap();
    assert_eq!(lines(&subs.lines), [(Some("sa_2"), 1, 20), (Some("sa_1"), 1, 6)]);
    let own = t.store.usage_by_sub_account("acc_1", Some("sa_1"), month).await.unwrap();
    assert_eq!(lines(&own.lines), [(Some("sa_1"), 1, 6)]);
    assert!(t.store.usage_by_sub_account("acc_10", Some("sa_1"), month).await.unwrap().lines.is_empty());
    assert!(t.store.usage_by_tag("acc_1", month.next()).await.unwrap().lines.is_empty());

    for n in 0..1001 {
        charge(t, &payer(None, Some(&format!("t{n}"))), 1, "m").await;
    }
    let tags = t.store.usage_by_tag("acc_1", month).await.unwrap();
    assert_eq!((tags.lines.len(), tags.has_more), (1000, true));
    assert_eq!(lines(&tags.lines)[2], (None, 1, 7), "what is not listed is not taken for untagged");
}

async fn a_sub_account_reads_its_own_rows(t: &TestStore) {
    let month = Month::of(t.now());
    for (sub, tag, cost) in
        [(Some("sa_1"), Some("a"), 5), (Some("sa_1"), Some("a"), 0), (Some("sa_2"), Some("a"), 9), (None, Some("a"), 9)]
    {
        charge(t, &payer(sub, tag), cost, "m").await;
    }
    charge(t, &payer(Some("sa_1"), None), 3, "m").await;
    t.store.end_call(failed(&call(t, &payer(Some("sa_1"), Some("never")), 0))).await.unwrap();
    let tags = t.store.usage_of_sub_account_by_tag("sa_1", month).await.unwrap();
    assert_eq!(lines(&tags.lines), [(Some("a"), 2, 5), (None, 1, 3)]);
    assert!(t.store.usage_of_sub_account_by_tag("sa_1", month.next()).await.unwrap().lines.is_empty());
}

fn failed(call: &NewCall) -> CallEnd {
    let mut end = ending(call, MoneyEnd::Release, false);
    end.row = end.row.map(|row| RequestRow { outcome: RequestOutcome::Failed, status: 502, ..row });
    end
}

async fn days_and_models_of_a_sub_account(t: &TestStore) {
    let begin = t.now();
    for (days, cost, model) in [(0, 5, "a"), (0, 6, "b"), (1, 7, "b"), (40, 8, "c")] {
        let since = begin.until(t.now());
        t.clock.forward(Duration::from_hours(24 * days).saturating_sub(since));
        charge(t, &payer(Some("sa_1"), None), cost, model).await;
        charge(t, &payer(Some("sa_2"), None), 100, model).await;
    }
    t.store.end_call(failed(&call(t, &payer(Some("sa_1"), None), 0))).await.unwrap();
    let end = begin.plus(Duration::from_hours(24 * 30));
    let usage = t.store.usage_of_sub_account("sa_1", begin, end).await.unwrap();
    let models: Vec<_> = usage.by_model.iter().map(|it| (it.model.as_str(), it.sums.requests, it.sums.cost)).collect();
    assert_eq!(models, [("b", 2, 13), ("a", 1, 5)]);
    let days: Vec<_> = usage.by_day.iter().map(|it| (it.begins.date(), it.sums.requests, it.sums.cost)).collect();
    assert_eq!(days, [("2027-01-15".to_owned(), 2, 11), ("2027-01-16".to_owned(), 1, 7)]);
    let total = usage.total();
    assert_eq!((total.requests, total.cost, total.input_tokens, total.output_tokens), (3, 18, 30, 9));
    let none = t.store.usage_of_sub_account("sa_9", begin, end).await.unwrap();
    assert_eq!((none.by_day.len(), none.by_model.len(), none.total().requests), (0, 0, 0));
}

async fn pages_of_requests_are_filtered(t: &TestStore) {
    let mut ids = Vec::new();
    for (n, (sub, tag)) in
        [(None, Some("a")), (Some("sa_1"), Some("a")), (Some("sa_1"), None), (Some("sa_2"), None)].iter().enumerate()
    {
        ids.push(charge(t, &payer(*sub, *tag), 1, if n == 3 { "other" } else { "m" }).await.id);
        if n != 1 {
            t.clock.forward(Duration::from_millis(1));
        }
    }
    // Two of one millisecond are told apart by their ids.
    ids[1..3].sort();
    charge(t, &Payer { account_id: "acc_2".into(), ..payer(None, Some("a")) }, 1, "m").await;
    let of = JobsOf::Account("acc_1");
    let all = RequestFilter { of, sub_account_id: None, tag: None, model: None };
    let read = async |filter: RequestFilter<'_>, after: Option<&str>, limit| {
        let page = t.store.recent_requests(filter, after, limit).await.unwrap()?;
        Some((page.items.into_iter().map(|row| row.id).collect::<Vec<_>>(), page.has_more))
    };
    let newest: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(read(all, None, 10).await, Some((newest.clone(), false)));
    let mut after: Option<String> = None;
    for (n, id) in newest.iter().enumerate() {
        let page = read(all, after.as_deref(), 1).await.unwrap();
        assert_eq!(page, (vec![id.clone()], n < 3));
        after = Some(id.clone());
    }
    let count = async |filter| read(filter, None, 10).await.unwrap().0.len();
    assert_eq!(count(RequestFilter { tag: Some("a"), ..all }).await, 2);
    assert_eq!(count(RequestFilter { model: Some("other"), ..all }).await, 1);
    assert_eq!(count(RequestFilter { sub_account_id: Some("sa_1"), ..all }).await, 2);
    assert_eq!(count(RequestFilter { sub_account_id: Some("sa_1"), tag: Some("a"), ..all }).await, 1);
    let foreign = RequestFilter { of: JobsOf::Account("acc_2"), ..all };
    assert_eq!(count(RequestFilter { sub_account_id: Some("sa_1"), ..foreign }).await, 0);
    assert_eq!(read(foreign, Some(&ids[0]), 10).await, None);
    let own = RequestFilter { of: JobsOf::SubAccount("sa_1"), ..all };
    assert_eq!(count(own).await, 2);
    assert_eq!(count(RequestFilter { sub_account_id: Some("sa_1"), ..own }).await, 2);
    assert_eq!(count(RequestFilter { sub_account_id: Some("sa_2"), ..own }).await, 0);
    assert_eq!(read(own, Some(&ids[3]), 10).await, None);
}

/// Reads a request as each of those who may see it, and as each of those who may not.
async fn see(t: &TestStore, id: &str, owners: &[JobsOf<'_>], others: &[JobsOf<'_>]) -> RequestDetail {
    for other in others {
        assert!(t.store.request(*other, id).await.unwrap().is_none(), "{other:?}");
    }
    let mut seen = None;
    for owner in owners {
        seen = Some(t.store.request(*owner, id).await.unwrap().unwrap());
    }
    seen.unwrap()
}

async fn a_request_with_its_money(t: &TestStore) {
    let (owners, others) = (
        [JobsOf::Account("acc_1"), JobsOf::SubAccount("sa_1")],
        [JobsOf::Account("acc_2"), JobsOf::SubAccount("sa_2")],
    );
    let one = call(t, &payer(Some("sa_1"), Some("a")), 10);
    drop(t.store.reserve_call(one.clone()).await.unwrap().unwrap());
    t.store.end_call(ending(&one, MoneyEnd::Charge(Nano(7)), true)).await.unwrap();
    assert_eq!(t.store.refund(&one.id, "r1", Nano(2)).await.unwrap(), Refunded::Yes);
    let seen = see(t, &one.id, &owners, &others).await;
    let SeenRequest::Ended(row) = seen.request else { panic!("it has ended") };
    assert_eq!((row.id, row.payer, row.cost), (one.id, one.payer, Nano(7)));
    assert_eq!((row.used.input_tokens, row.outcome), (1, RequestOutcome::Completed));
    let reservation = seen.reservation.unwrap();
    assert_eq!((reservation.amount, reservation.state.as_str()), (10, "settled"));
    assert_eq!((seen.refunds.len(), seen.refunds[0].amount), (1, Nano(2)));
    assert_eq!(seen.refunds[0].reference, "r1");

    let free = charge(t, &payer(None, None), 1, "m").await;
    let seen = see(t, &free.id, &[JobsOf::Account("acc_1")], &[JobsOf::SubAccount("sa_1")]).await;
    assert_eq!((seen.reservation, seen.refunds), (None, Vec::new()));
    assert!(t.store.request(JobsOf::Account("acc_1"), "req_none").await.unwrap().is_none());
}

async fn a_request_under_way_is_known_by_its_reservation(t: &TestStore) {
    let one = call(t, &payer(Some("sa_1"), Some("a")), 10);
    drop(t.store.reserve_call(one.clone()).await.unwrap().unwrap());
    let (owners, others) = (
        [JobsOf::Account("acc_1"), JobsOf::SubAccount("sa_1")],
        [JobsOf::Account("acc_2"), JobsOf::SubAccount("sa_2")],
    );
    let seen = see(t, &one.id, &owners, &others).await;
    let SeenRequest::Open(open) = seen.request else { panic!("it is under way") };
    assert_eq!((open.id, open.payer, open.job_id), (one.id, one.payer, None));
    assert_eq!(seen.reservation.unwrap().state, "held");

    // A job is found by the time in the id of its request.
    t.account("acc_1").await;
    let mut new = t.job("acc_1");
    let request_id = id::new("req_", t.now().minus(Duration::from_secs(50)));
    new.job.request_id = request_id.clone();
    t.store.accept_job(new).await.unwrap();
    let seen = see(t, &request_id, &owners[..1], &others).await;
    let SeenRequest::Open(open) = seen.request else { panic!("it is under way") };
    assert!(open.job_id.is_some() && open.model.as_deref() == Some("sandbox/video"));
    assert_eq!(open.payer, crate::support::payer("acc_1"));
    let reservation = seen.reservation.unwrap();
    assert_eq!((reservation.amount, reservation.state.as_str()), (20, "held"));

    let claimed = t.claim(1).await.remove(0);
    t.store.end_job(t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &completed())).await.unwrap();
    let seen = see(t, &request_id, &owners[..1], &others).await;
    let SeenRequest::Ended(row) = seen.request else { panic!("it has ended") };
    assert_eq!((row.job_id, row.cost), (open.job_id, Nano(20)));
    assert_eq!(seen.reservation.unwrap().state, "settled");
}
