//! Sub-accounts, keys with limits and their rotation, and the caps of tags.

use std::time::Duration;

use aig_domain::tenant::{Change, Limits};
use aig_domain::{Month, Nano};
use aig_store::{ApiKey, NewApiKey, NewLimitedKey, NewSubAccount, Scope, SubAccount, SubAccountChange};

use crate::support::{TestStore, both};

both!(
    a_sub_account_is_paid_for_and_limited_from_above,
    a_change_touches_what_it_names,
    a_deleted_sub_account_is_gone_with_its_keys,
    pages_hold_what_is_ones_own,
    a_key_carries_its_own_limits,
    a_rotated_key_keeps_its_budget_and_dies_when_the_new_one_is_used,
    a_key_that_was_never_used_dies_with_the_one_it_replaced,
    the_cap_of_a_tag,
);

fn new_key(id: &str) -> NewApiKey {
    NewApiKey {
        id: format!("key_{id}"),
        public_id: id.into(),
        hash: "00".into(),
        kid: "k1".into(),
        scope: Scope::Standard,
    }
}

fn limits() -> Limits {
    Limits {
        spend_cap: Some(Nano(7)),
        rate_limit_rpm: Some(60),
        allowed_models: Some(vec!["a/*".into(), "\"b\"/é".into()]),
    }
}

fn new_sub_account(id: &str, parent: &str) -> NewSubAccount {
    NewSubAccount {
        id: id.into(),
        parent_id: parent.into(),
        name: "Customer".into(),
        external_ref: Some("c-1".into()),
        default_tag: Some("customer".into()),
        limits: limits(),
        webhook_secret: format!("sealed for {id}"),
        key: new_key(&format!("of_{id}")),
    }
}

fn limited_key(id: &str, payer: &str) -> NewLimitedKey {
    NewLimitedKey {
        key: new_key(id),
        payer_id: payer.into(),
        sub_account_id: None,
        name: Some("CI".into()),
        limits: limits(),
        expires_at: None,
    }
}

async fn sub_account(t: &TestStore, id: &str, parent: &str) -> SubAccount {
    t.account(parent).await;
    t.store.create_sub_account(&new_sub_account(id, parent)).await.unwrap()
}

async fn loaded(t: &TestStore, public_id: &str) -> ApiKey {
    t.store.key_by_public_id(public_id).await.unwrap().unwrap()
}

async fn a_sub_account_is_paid_for_and_limited_from_above(t: &TestStore) {
    let made = sub_account(t, "sa_1", "acc_1").await;
    assert_eq!(made.limits, limits());
    assert_eq!(t.store.sub_account("acc_1", "sa_1").await.unwrap().as_ref(), Some(&made));
    assert_eq!(t.store.webhook_secrets("sa_1").await.unwrap().current, "sealed for sa_1");
    let key = loaded(t, "of_sa_1").await;
    assert_eq!((key.account_id.as_str(), key.payer_id.as_str(), key.tier.as_str()), ("sa_1", "acc_1", "unlimited"));
    assert!(key.is_of_sub_account() && key.has_cap && !key.is_limited);
    assert_eq!((key.rate_limit_rpm, key.payer(None).tag.as_deref()), (Some(60), Some("customer")));
    assert!(key.allows("a/b/c") && key.allows("\"b\"/é") && !key.allows("b/c"));
    for (parent, id) in [("acc_1", "sa_2"), ("acc_2", "sa_1"), ("sa_1", "sa_1"), ("acc_1", "acc_1")] {
        assert_eq!(t.store.sub_account(parent, id).await.unwrap(), None, "{parent} {id}");
    }
    let below = t.store.create_sub_account(&new_sub_account("sa_2", "sa_1")).await;
    assert!(below.is_err(), "a sub-account has none of its own");
    assert!(t.store.key_by_public_id("of_sa_2").await.unwrap().is_none());
}

async fn a_change_touches_what_it_names(t: &TestStore) {
    let made = sub_account(t, "sa_1", "acc_1").await;
    let unchanged = t.store.update_sub_account("acc_1", "sa_1", &SubAccountChange::default()).await.unwrap();
    assert_eq!(unchanged.as_ref(), Some(&made));
    let change = SubAccountChange {
        name: Some("Renamed".into()),
        external_ref: Change::Clear,
        spend_cap: Change::Set(Nano(0)),
        rate_limit_rpm: Change::Set(5),
        ..SubAccountChange::default()
    };
    let changed = t.store.update_sub_account("acc_1", "sa_1", &change).await.unwrap().unwrap();
    assert_eq!((changed.name.as_str(), changed.external_ref.as_deref()), ("Renamed", None));
    assert_eq!((changed.limits.spend_cap, changed.limits.rate_limit_rpm), (Some(Nano(0)), Some(5)));
    assert_eq!((changed.default_tag, changed.limits.allowed_models), (made.default_tag, made.limits.allowed_models));
    let clear = SubAccountChange {
        default_tag: Change::Clear,
        spend_cap: Change::Clear,
        rate_limit_rpm: Change::Clear,
        allowed_models: Change::Clear,
        ..SubAccountChange::default()
    };
    let cleared = t.store.update_sub_account("acc_1", "sa_1", &clear).await.unwrap().unwrap();
    assert_eq!((cleared.default_tag, cleared.limits), (None, Limits::default()));
    let key = loaded(t, "of_sa_1").await;
    assert!(!key.has_cap && key.allows("b/c") && key.rate_limit_rpm.is_none());
    for (parent, id) in [("acc_2", "sa_1"), ("acc_1", "sa_2"), ("acc_1", "acc_1")] {
        assert_eq!(t.store.update_sub_account(parent, id, &change).await.unwrap(), None, "{parent} {id}");
    }
    assert_eq!(t.store.sub_account("acc_1", "sa_1").await.unwrap().unwrap().name, "Renamed");
}

async fn a_deleted_sub_account_is_gone_with_its_keys(t: &TestStore) {
    sub_account(t, "sa_1", "acc_1").await;
    let second = NewLimitedKey { sub_account_id: Some("sa_1".into()), ..limited_key("second", "acc_1") };
    t.store.create_key(&second).await.unwrap().unwrap();
    assert_eq!(t.store.delete_sub_account("acc_2", "sa_1").await.unwrap(), None);
    let mut keys = t.store.delete_sub_account("acc_1", "sa_1").await.unwrap().unwrap();
    keys.sort();
    assert_eq!(keys, ["of_sa_1", "second"]);
    assert!(loaded(t, "second").await.revoked_at.is_some());
    assert_eq!(t.store.delete_sub_account("acc_1", "sa_1").await.unwrap(), None, "once");
    assert_eq!(t.store.sub_account("acc_1", "sa_1").await.unwrap(), None);
    assert_eq!(t.store.sub_accounts("acc_1", None, 10).await.unwrap().unwrap().items, []);
    assert_eq!(t.store.sub_accounts("acc_1", Some("sa_1"), 10).await.unwrap(), None);
    assert_eq!(t.store.key("acc_1", "key_second").await.unwrap(), None);
    let late = NewLimitedKey { sub_account_id: Some("sa_1".into()), ..limited_key("late", "acc_1") };
    assert_eq!(t.store.create_key(&late).await.unwrap(), None);
    let change = SubAccountChange { name: Some("x".into()), ..SubAccountChange::default() };
    assert_eq!(t.store.update_sub_account("acc_1", "sa_1", &change).await.unwrap(), None);
}

async fn pages_hold_what_is_ones_own(t: &TestStore) {
    for n in 1..=5 {
        sub_account(t, &format!("sa_{n}"), "acc_1").await;
        // The second and the third are of the same millisecond.
        t.clock.forward(Duration::from_millis(u64::from(n != 2)));
    }
    sub_account(t, "sa_other", "acc_2").await;
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = t.store.sub_accounts("acc_1", after.as_deref(), 2).await.unwrap().unwrap();
        after = page.items.last().map(|last| last.id.clone());
        seen.extend(page.items.into_iter().map(|item| item.id));
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, ["sa_5", "sa_4", "sa_3", "sa_2", "sa_1"]);
    assert_eq!(t.store.sub_accounts("acc_1", Some("sa_other"), 2).await.unwrap(), None);
    t.store.create_key(&limited_key("own", "acc_1")).await.unwrap().unwrap();
    let ids = async |owner: &str| -> Vec<String> {
        let page = t.store.keys(owner, None, 10).await.unwrap().unwrap();
        page.items.into_iter().map(|key| key.public_id).collect()
    };
    assert_eq!(ids("acc_1").await, ["own"]);
    assert_eq!(ids("sa_4").await, ["of_sa_4"]);
    assert_eq!(t.store.keys("acc_1", Some("key_of_sa_4"), 10).await.unwrap(), None);
    assert_eq!(t.store.live_keys("acc_1").await.unwrap().len(), 6);
    assert_eq!(t.store.live_keys("sa_4").await.unwrap(), ["of_sa_4"]);
}

async fn a_key_carries_its_own_limits(t: &TestStore) {
    sub_account(t, "sa_1", "acc_1").await;
    let expires_at = Some(t.now().plus(Duration::from_mins(1)));
    let new = NewLimitedKey {
        sub_account_id: Some("sa_1".into()),
        expires_at,
        limits: Limits { rate_limit_rpm: Some(3), allowed_models: Some(vec!["*/b".into()]), ..limits() },
        ..limited_key("one", "acc_1")
    };
    let made = t.store.create_key(&new).await.unwrap().unwrap();
    assert_eq!(t.store.key("acc_1", "key_one").await.unwrap().as_ref(), Some(&made));
    let key = loaded(t, "one").await;
    assert_eq!((key.rate_limit_rpm, key.expires_at), (Some(3), expires_at));
    assert!(key.is_limited && key.has_cap && key.allows("a/b") && !key.allows("a/c") && !key.allows("x/b"));
    for (payer, id) in [("acc_2", "key_one"), ("sa_2", "key_one"), ("acc_1", "key_two")] {
        assert_eq!(t.store.key(payer, id).await.unwrap(), None, "{payer} {id}");
        assert_eq!(t.store.revoke_key(payer, id).await.unwrap(), None, "{payer} {id}");
        assert_eq!(t.store.rotate_key(payer, id, &new_key("x")).await.unwrap(), None, "{payer} {id}");
    }
    assert_eq!(loaded(t, "one").await.revoked_at, None);
    let foreign = NewLimitedKey { sub_account_id: Some("sa_1".into()), ..limited_key("foreign", "acc_2") };
    assert_eq!(t.store.create_key(&foreign).await.unwrap(), None);
    let revoked = t.store.revoke_key("acc_1", "key_one").await.unwrap().unwrap();
    assert_eq!(revoked.revoked_at, Some(t.now()));
    t.clock.forward(Duration::from_secs(1));
    assert_eq!(t.store.revoke_key("acc_1", "key_one").await.unwrap(), Some(revoked), "the first time stays");
    assert_eq!(t.store.rotate_key("acc_1", "key_one", &new_key("x")).await.unwrap(), None, "a dead key has no heir");
}

async fn a_rotated_key_keeps_its_budget_and_dies_when_the_new_one_is_used(t: &TestStore) {
    t.account("acc_1").await;
    let new = NewLimitedKey { expires_at: Some(t.now().plus(Duration::from_mins(1))), ..limited_key("old", "acc_1") };
    let old = t.store.create_key(&new).await.unwrap().unwrap();
    let made = t.store.rotate_key("acc_1", "key_old", &new_key("new")).await.unwrap().unwrap();
    assert_eq!((&made.name, &made.limits, made.expires_at), (&old.name, &old.limits, old.expires_at));
    assert_eq!(made.replaces.as_deref(), Some("key_old"));
    let (one, two) = (loaded(t, "old").await, loaded(t, "new").await);
    assert_eq!((one.budget_id.as_str(), two.budget_id.as_str()), ("key_old", "key_old"));
    assert!(one.revoked_at.is_none() && two.has_cap && two.is_limited);
    let again = t.store.rotate_key("acc_1", "key_new", &new_key("third")).await.unwrap().unwrap();
    assert_eq!((again.limits, loaded(t, "third").await.budget_id.as_str()), (old.limits, "key_old"));

    let (a, b) =
        tokio::join!(t.store.retire_replaced("key_new", "key_old"), t.store.retire_replaced("key_new", "key_old"),);
    let died: Vec<String> = a.unwrap().into_iter().chain(b.unwrap()).collect();
    assert_eq!(died, ["old"], "exactly one of two processes is first");
    assert!(loaded(t, "old").await.revoked_at.is_some());
    let new = loaded(t, "new").await;
    assert_eq!((new.replaces, new.revoked_at), (None, None), "there is nothing more to do");
}

async fn a_key_that_was_never_used_dies_with_the_one_it_replaced(t: &TestStore) {
    t.account("acc_1").await;
    t.store.create_key(&limited_key("a", "acc_1")).await.unwrap().unwrap();
    for (old, new) in [("key_a", "b"), ("key_b", "c")] {
        t.store.rotate_key("acc_1", old, &new_key(new)).await.unwrap().unwrap();
    }
    let mut died = t.store.retire_replaced("key_c", "key_b").await.unwrap();
    died.sort();
    assert_eq!(died, ["a", "b"]);
    assert!(loaded(t, "c").await.revoked_at.is_none());
}

async fn the_cap_of_a_tag(t: &TestStore) {
    t.account("acc_1").await;
    t.store.create_key(&NewLimitedKey { limits: Limits::default(), ..limited_key("k", "acc_1") }).await.unwrap();
    let (made, is_new) = t.store.put_budget("acc_1", "bud_1", Some("a:b"), Nano(5)).await.unwrap();
    assert!(is_new && (made.tag.as_deref(), made.cap) == (Some("a:b"), Nano(5)));
    let key = loaded(t, "k").await;
    assert!(key.has_tag_caps && !key.has_cap && !key.is_limited);
    t.clock.forward(Duration::from_secs(1));
    let (again, is_new) = t.store.put_budget("acc_1", "bud_2", Some("a:b"), Nano(6)).await.unwrap();
    assert!(!is_new);
    assert_eq!((again.id.as_str(), again.cap, again.created_at), ("bud_1", Nano(6), made.created_at));
    assert_eq!(again.updated_at, t.now());
    let (other, is_new) = t.store.put_budget("acc_2", "bud_3", Some("a:b"), Nano(7)).await.unwrap();
    assert!(is_new, "tags of different accounts are different");
    let page = t.store.budgets("acc_1", None, 10).await.unwrap().unwrap();
    assert_eq!((page.items, page.has_more), (vec![again], false));
    assert_eq!(t.store.budgets("acc_1", Some("bud_3"), 10).await.unwrap(), None);
    assert_eq!(t.store.update_budget("acc_1", "bud_3", Nano(0)).await.unwrap(), None);
    let zero = t.store.update_budget("acc_1", "bud_1", Nano(0)).await.unwrap().unwrap();
    assert_eq!(zero.cap, Nano(0));
    assert!(!t.store.delete_budget("acc_1", "bud_3").await.unwrap());
    assert!(t.store.delete_budget("acc_1", "bud_1").await.unwrap());
    assert!(!loaded(t, "k").await.has_tag_caps);
    assert_eq!(t.store.budgets("acc_2", None, 10).await.unwrap().unwrap().items, [other]);
    let (whole, is_new) = t.store.put_budget("acc_1", "bud_4", None, Nano(9)).await.unwrap();
    assert!(is_new && whole.tag.is_none() && loaded(t, "k").await.has_cap, "the account itself");
    assert_eq!(t.store.balance("acc_1", Month::of(t.now())).await.unwrap().cap, Some(Nano(9)));
}
