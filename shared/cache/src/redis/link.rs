//! The limiter's connection, and the breaker around it: one failure opens it at once, one good probe closes it.
//!
//! A failure on a connection that has been replaced meanwhile changes nothing. Tests at the
//! end, and `shared/cache/tests/suite/limiter_troubles.rs`.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ::redis::aio::MultiplexedConnection;

use super::health::Health;

/// A connection that answered when it was last asked.
#[derive(Clone)]
pub(super) struct Up {
    pub(super) connection: MultiplexedConnection,
    number: u64,
}

/// The breaker.
pub(super) struct Link {
    slot: RwLock<Slot>,
    pub(super) health: Health,
}

#[derive(Default)]
struct Slot {
    up: Option<Up>,
    numbers: u64,
}

impl Link {
    /// An open breaker.
    pub(super) fn new(health: Health) -> Self {
        Self { slot: RwLock::default(), health }
    }

    /// The connection to use; `None` while the breaker is open.
    pub(super) fn up(&self) -> Option<Up> {
        self.read().up.clone()
    }

    /// Closes the breaker.
    pub(super) fn heal(&self, connection: MultiplexedConnection) {
        let mut slot = self.write();
        slot.numbers += 1;
        slot.up = Some(Up { connection, number: slot.numbers });
        self.health.good();
    }

    /// Opens the breaker, unless `failed` has been replaced or given up already.
    pub(super) fn trip(&self, failed: &Up, reason: String) {
        let mut slot = self.write();
        if slot.up.as_ref().is_some_and(|up| up.number == failed.number) {
            slot.up = None;
            self.health.bad(reason);
        }
    }

    /// Opens the breaker, or leaves it open.
    pub(super) fn open(&self, reason: String) {
        let mut slot = self.write();
        slot.up = None;
        self.health.bad(reason);
    }

    /// Opens the breaker for good.
    pub(super) fn close(&self) {
        self.write().up = None;
        self.health.closed();
    }

    fn read(&self) -> RwLockReadGuard<'_, Slot> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slot> {
        self.slot.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to nobody.
    async fn connection() -> MultiplexedConnection {
        let settings = ::redis::RedisConnectionInfo::default().set_skip_set_lib_name();
        let (here, _there) = tokio::io::duplex(64);
        let (connection, _driver) = MultiplexedConnection::new(&settings, here).await.unwrap();
        connection
    }

    #[tokio::test]
    async fn a_connection_that_was_replaced_does_no_harm() {
        let link = Link::new(Health::new("aig_test_degraded", "tests are late"));
        assert!(link.up().is_none());
        link.heal(connection().await);
        let old = link.up().unwrap();
        link.trip(&old, "it rains".into());
        assert!(link.up().is_none());
        link.heal(connection().await);
        link.trip(&old, "it rained".into());
        assert!(link.up().is_some());
        assert_eq!(link.health.trouble(), None);
        link.open("it rains again".into());
        assert!(link.up().is_none());
    }
}
