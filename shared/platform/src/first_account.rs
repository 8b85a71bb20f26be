//! The first account and its two keys, made when no account exists.
//!
//! The key files are written under other names, the account is committed, and only then do the files get theirs. A crash in
//! between leaves files that the next start recognises: it moves them to their place if their account was committed.

use aig_domain::crypto::KeyRing;
use aig_domain::signing::new_webhook_secret;
use aig_domain::{Clock, id, keys};
use aig_store::{NewAccount, NewApiKey, Scope, Store};
use anyhow::Context as _;

use crate::datadir::DataDir;

/// The files, with the scope of the key each holds.
const FILES: [(&str, Scope); 2] = [("first-key", Scope::Standard), ("admin-key", Scope::Admin)];

/// Makes sure that there is an account whose keys are in the data folder.
///
/// # Errors
/// When the database or the folder fails.
pub async fn ensure(store: &Store, folder: &DataDir, ring: &KeyRing, clock: &dyn Clock) -> anyhow::Result<()> {
    if !store.has_account().await? {
        create(store, folder, ring, clock).await?;
    }
    for (name, _) in FILES {
        finish(store, folder, name).await?;
    }
    Ok(())
}

async fn create(store: &Store, folder: &DataDir, ring: &KeyRing, clock: &dyn Clock) -> anyhow::Result<()> {
    let now = clock.now();
    let account_id = id::new("acc_", now);
    let mut stored = Vec::with_capacity(FILES.len());
    for (name, scope) in FILES {
        let key = keys::generate(ring);
        folder.write(&pending(name), key.text.expose())?;
        stored.push(NewApiKey {
            id: id::new("key_", now),
            public_id: key.public_id,
            hash: key.hash,
            kid: key.kid,
            scope,
        });
    }
    let account = NewAccount {
        webhook_secret: ring.seal(&account_id, new_webhook_secret().expose()),
        id: account_id,
        name: "first".into(),
        tier: "unlimited".into(),
        keys: stored,
    };
    store.create_first_account(&account).await.context("the first account could not be made")?;
    Ok(())
}

/// Gives a pending key file its name if the database knows its key; drops it if another process was first.
async fn finish(store: &Store, folder: &DataDir, name: &str) -> anyhow::Result<()> {
    let Ok(text) = std::fs::read_to_string(folder.join(&pending(name))) else { return Ok(()) };
    let known = match keys::public_id(&text) {
        Some(public_id) => store.key_by_public_id(public_id).await?.is_some(),
        None => false,
    };
    if known {
        folder.write(name, &text)?;
    }
    folder.remove(&pending(name));
    Ok(())
}

fn pending(name: &str) -> String {
    format!("{name}.pending")
}
