//! Time as a parameter: one trait, and one unit, Unix milliseconds.

use std::time::Duration;

use chrono::{DateTime, Timelike as _, Utc};
use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// Whole seconds since the Unix epoch, rounded down: the unit of the wire.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time moved forward by `by`; saturates at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(as_millis(by)))
    }

    /// This time moved back by `by`; saturates at the beginning of time.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(as_millis(by)))
    }

    /// How long from `self` until `later`; zero when `later` is not later.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// The time as ISO 8601 writes it, such as `2026-11-03T04:05:06.007Z`.
    pub fn iso(self) -> String {
        let at = self.date_time();
        let (hour, minute, second, milli) = (at.hour(), at.minute(), at.second(), at.timestamp_subsec_millis());
        format!("{}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", at.date_naive())
    }

    /// The day in UTC, such as `2026-11-03`.
    pub fn date(self) -> String {
        self.date_time().date_naive().to_string()
    }

    fn date_time(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }
}

fn as_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where the time comes from. Everything that needs it takes one; nothing reads the system clock itself.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Millis;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    fn now(&self) -> Millis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Millis(since.map_or(0, as_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_down_also_before_the_epoch() {
        assert_eq!(Millis(1999).unix_seconds(), 1);
        assert_eq!(Millis(-1).unix_seconds(), -1);
    }

    #[test]
    fn times_are_written_in_utc() {
        let at = Millis(1_793_678_706_007);
        assert_eq!((at.iso().as_str(), at.date().as_str()), ("2026-11-03T04:05:06.007Z", "2026-11-03"));
        assert_eq!(Millis(0).iso(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn until_is_never_negative() {
        assert_eq!(Millis(5).until(Millis(3)), Duration::ZERO);
        assert_eq!(Millis(5).until(Millis(8)), Duration::from_millis(3));
    }
}
