//! Leadership: who of several processes does what only one needs to do.
//!
//! A row with a lease and an epoch, not a lock of the server's: a lock belongs to a connection, and connections come and go.
//! A lease cannot keep an old leader that was stopped in its tracks from acting once more, so whatever a leader does has to
//! be harmless when two do it.

use std::time::Duration;

use aig_domain::Millis;

use crate::db::on;
use crate::{Store, StoreError};

/// Where a process stands after it asked to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It leads, under this epoch, which rises with each change of the leader.
    Leading(i64),
    /// Another leads, at least until then.
    Following(Millis),
}

const LEAD: &str = "INSERT INTO leaders (name, holder, epoch, lease_until) VALUES ($1, $2, 1, $3) \
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until, \
    epoch = CASE WHEN leaders.holder = excluded.holder THEN leaders.epoch ELSE leaders.epoch + 1 END \
    WHERE leaders.holder = excluded.holder OR leaders.lease_until < $4 RETURNING epoch";
const CURRENT: &str = "SELECT holder, lease_until FROM leaders WHERE name = $1";
const RESIGN: &str = "UPDATE leaders SET lease_until = 0 WHERE name = $1 AND holder = $2";

impl Store {
    /// Leads `name` until `now + lease`, or goes on doing so, unless another holds it.
    pub async fn lead(&self, name: &str, holder: &str, lease: Duration) -> Result<Leadership, StoreError> {
        let now = self.clock.now();
        // Who has nothing to gain only reads, and locks no row.
        let current: Option<(String, i64)> =
            on!(self.db.read(), |pool| sqlx::query_as(CURRENT).bind(name).fetch_optional(pool).await)?;
        match current {
            Some((other, until)) if other != holder && until >= now.0 => {
                return Ok(Leadership::Following(Millis(until)));
            }
            _ => {}
        }
        let epoch: Option<i64> = on!(self.db.write(), |pool| {
            let query = sqlx::query_scalar(LEAD).bind(name).bind(holder).bind(now.plus(lease).0).bind(now.0);
            query.fetch_optional(pool).await
        })?;
        // Nothing came back: another was quicker, just now.
        Ok(epoch.map_or(Leadership::Following(now.plus(lease)), Leadership::Leading))
    }

    /// Lets another lead `name` at once, if `holder` does.
    pub async fn resign(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        on!(self.db.write(), |pool| sqlx::query(RESIGN).bind(name).bind(holder).execute(pool).await.map(drop))?;
        Ok(())
    }
}
