//! Who pays, and whether that fits: the scopes of a request, their balances, and the one rule of admission.

use std::collections::BTreeMap;
use std::fmt;

use crate::Nano;

/// Who pays for a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Payer {
    /// The account, never a sub-account.
    pub account_id: String,
    /// The sub-account whose key it is.
    pub sub_account_id: Option<String>,
    /// What the key's spending is counted under: the id of the first key of its rotations.
    pub key_id: String,
    /// The label of the request's cost.
    pub tag: Option<String>,
}

impl Payer {
    /// The scopes of the request, from the outermost to the innermost.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        let account = Scope { kind: ScopeKind::Account, id: self.account_id.clone() };
        let sub_account = self.sub_account_id.clone().map(|id| Scope { kind: ScopeKind::SubAccount, id });
        let key = Scope { kind: ScopeKind::Key, id: self.key_id.clone() };
        let tag = self.tag.as_ref().map(|tag| Scope::tag(&self.account_id, tag));
        [Some(account), sub_account, Some(key), tag].into_iter().flatten()
    }
}

/// Something that money is counted under and that may have a cap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// What it is.
    pub kind: ScopeKind,
    /// Which one: its id, and for a tag `tag:<account>:<tag>`. Unique over all kinds.
    pub id: String,
}

impl Scope {
    /// The scope of an account's requests with `tag`, its sub-accounts' included.
    pub fn tag(account_id: &str, tag: &str) -> Self {
        Self { kind: ScopeKind::Tag, id: format!("tag:{account_id}:{tag}") }
    }

    /// What its owner knows it by: its id, or the tag.
    pub fn name(&self) -> &str {
        match self.kind {
            ScopeKind::Tag => self.id.splitn(3, ':').nth(2).unwrap_or_default(),
            _ => &self.id,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind.words(), self.name())
    }
}

/// The kinds of scope, from the outermost to the innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// The account that pays.
    Account,
    /// One of its sub-accounts.
    SubAccount,
    /// A key.
    Key,
    /// A label.
    Tag,
}

impl ScopeKind {
    /// The word in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::SubAccount => "sub_account",
            Self::Key => "key",
            Self::Tag => "tag",
        }
    }

    /// The words for people.
    fn words(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::SubAccount => "sub-account",
            Self::Key => "key",
            Self::Tag => "tag",
        }
    }
}

/// How a scope stands in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The most that may be spent; `None` for no cap.
    pub cap: Option<Nano>,
    /// Charged, less what was given back.
    pub spent: Nano,
    /// Promised to work under way.
    pub held: Nano,
    /// May have been billed upstream: not charged, and counted until the period ends.
    pub uncertain: Nano,
}

impl Balance {
    /// What counts against the cap.
    pub fn used(&self) -> Nano {
        self.spent.plus(self.held).plus(self.uncertain)
    }

    /// What is left below the cap; `None` without one.
    pub fn left(&self) -> Option<Nano> {
        self.cap.map(|cap| Nano((cap.0 - self.used().0).max(0)))
    }
}

/// A cap that a request does not fit under. Nothing was reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Whose cap.
    pub scope: Scope,
    /// How it stands.
    pub balance: Balance,
    /// What the request could cost.
    pub wanted: Nano,
}

/// Balances of one period, by the scope's id.
pub type Balances = BTreeMap<String, Balance>;

/// Adds `amount` to what the scopes hold, if it fits under every cap; else nothing changes. A scope without a balance has no
/// cap and nothing spent.
///
/// # Errors
/// The outermost cap that it does not fit under.
pub fn admit(balances: &mut Balances, scopes: &[Scope], amount: Nano) -> Result<(), Exhausted> {
    for scope in scopes {
        let balance = balances.get(&scope.id).copied().unwrap_or_default();
        // A cap that is reached stops what costs nothing, too.
        let refused = balance.left().is_some_and(|left| amount > left || left == Nano::ZERO);
        if refused {
            return Err(Exhausted { scope: scope.clone(), balance, wanted: amount });
        }
    }
    for scope in scopes {
        let balance = balances.entry(scope.id.clone()).or_default();
        balance.held = balance.held.plus(amount);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer() -> Payer {
        Payer {
            account_id: "acc_1".into(),
            sub_account_id: Some("sa_1".into()),
            key_id: "key_1".into(),
            tag: Some("a:b".into()),
        }
    }

    fn cap(cap: i64) -> Balance {
        Balance { cap: Some(Nano(cap)), ..Balance::default() }
    }

    #[test]
    fn a_request_has_up_to_four_scopes_from_the_outside_in() {
        let scopes: Vec<Scope> = payer().scopes().collect();
        assert!(scopes.is_sorted());
        let ids: Vec<&str> = scopes.iter().map(|scope| scope.id.as_str()).collect();
        assert_eq!(ids, ["acc_1", "sa_1", "key_1", "tag:acc_1:a:b"]);
        assert_eq!(scopes[3].to_string(), "tag `a:b`");
    }

    #[test]
    fn admission_is_all_or_nothing() {
        let scopes: Vec<Scope> = payer().scopes().collect();
        let mut balances = BTreeMap::from([("acc_1".to_owned(), cap(10)), ("key_1".to_owned(), cap(3))]);
        assert_eq!(admit(&mut balances, &scopes, Nano(3)), Ok(()));
        let before = balances.clone();
        let refused = admit(&mut balances, &scopes, Nano(1)).unwrap_err();
        assert_eq!((refused.scope.kind, refused.balance.held), (ScopeKind::Key, Nano(3)));
        assert_eq!(balances, before);
        assert_eq!(balances["sa_1"].held, Nano(3), "a scope without a cap is counted too");
    }

    #[test]
    fn nothing_passes_a_cap_that_is_reached_not_even_what_is_free() {
        let scopes: Vec<Scope> = payer().scopes().collect();
        for (cap_of, amount) in [(0, 0), (0, 1), (5, 6)] {
            let mut balances = BTreeMap::from([("sa_1".to_owned(), cap(cap_of))]);
            assert!(admit(&mut balances, &scopes, Nano(amount)).is_err(), "{amount} under {cap_of}");
        }
        let mut balances = BTreeMap::from([("sa_1".to_owned(), cap(5))]);
        assert_eq!(admit(&mut balances, &scopes, Nano(5)), Ok(()));
        let mut full = BTreeMap::from([("acc_1".to_owned(), Balance { spent: Nano(9), ..cap(5) })]);
        assert_eq!(full["acc_1"].left(), Some(Nano::ZERO), "a lowered cap only blocks");
        assert!(admit(&mut full, &scopes, Nano::ZERO).is_err());
    }
}
