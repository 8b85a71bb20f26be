//! Accounts, keys, webhook secrets, and the fingerprint of the secret key.

use std::time::Duration;

use aig_store::{NewAccount, NewApiKey, Scope, StoreError};

use crate::support::{TestStore, both};

both!(
    the_first_account_is_made_once,
    a_key_is_found_by_its_public_id,
    a_rotated_secret_may_have_a_time_of_grace,
    another_secret_key_is_refused,
    migrating_twice_is_harmless,
);

fn account(id: &str) -> NewAccount {
    let key = |name: &str, scope| NewApiKey {
        id: format!("key_{id}_{name}"),
        public_id: format!("{id}{name}"),
        hash: "00".into(),
        kid: "k1".into(),
        scope,
    };
    NewAccount {
        id: id.into(),
        name: "first".into(),
        tier: "unlimited".into(),
        webhook_secret: "sealed".into(),
        keys: vec![key("a", Scope::Standard), key("b", Scope::Admin)],
    }
}

async fn the_first_account_is_made_once(t: &TestStore) {
    assert!(!t.store.has_account().await.unwrap());
    let (one, two) = (account("acc_1"), account("acc_2"));
    let (a, b) = tokio::join!(t.store.create_first_account(&one), t.store.create_first_account(&two));
    assert_eq!(u8::from(a.unwrap()) + u8::from(b.unwrap()), 1);
    assert!(t.store.has_account().await.unwrap());
}

async fn a_key_is_found_by_its_public_id(t: &TestStore) {
    t.store.create_account(&account("acc_1")).await.unwrap();
    let key = t.store.key_by_public_id("acc_1b").await.unwrap().unwrap();
    assert_eq!((key.account_id.as_str(), key.scope, key.revoked_at), ("acc_1", Scope::Admin, None));
    assert!(t.store.key_by_public_id("acc_1c").await.unwrap().is_none());
}

async fn a_rotated_secret_may_have_a_time_of_grace(t: &TestStore) {
    t.store.create_account(&account("acc_1")).await.unwrap();
    t.store.rotate_webhook_secret("acc_1", "second", None).await.unwrap();
    let secrets = t.store.webhook_secrets("acc_1").await.unwrap();
    assert_eq!((secrets.current.as_str(), secrets.previous, secrets.previous_until), ("second", None, None));
    let until = t.now().plus(Duration::from_mins(1));
    t.store.rotate_webhook_secret("acc_1", "third", Some(until)).await.unwrap();
    let secrets = t.store.webhook_secrets("acc_1").await.unwrap();
    assert_eq!((secrets.current.as_str(), secrets.previous.as_deref()), ("third", Some("second")));
    assert_eq!(secrets.previous_until, Some(until.0));
}

async fn another_secret_key_is_refused(t: &TestStore) {
    let pair = |kid: &str, print: &str| (kid.to_owned(), print.to_owned());
    t.store.check_secret_keys(&[pair("k1", "a")]).await.unwrap();
    t.store.check_secret_keys(&[pair("k2", "b"), pair("k1", "a")]).await.unwrap();
    for wrong in [vec![pair("k1", "x")], vec![pair("k3", "c")]] {
        let refused = t.store.check_secret_keys(&wrong).await;
        assert!(matches!(refused, Err(StoreError::OtherSecretKey { .. })), "{wrong:?}");
    }
    t.store.check_secret_keys(&[pair("k2", "b")]).await.unwrap();
}

async fn migrating_twice_is_harmless(t: &TestStore) {
    t.store.migrate().await.unwrap();
    t.store.ping().await.unwrap();
}
