//! How long to wait before the next try.

use std::time::Duration;

use crate::id::random_bytes;

/// `base` made up to `share` longer or shorter; `share` is in percent.
pub fn jitter(base: Duration, share: u32) -> Duration {
    jitter_with(base, share, u16::from_le_bytes(random_bytes()))
}

/// [`jitter`] with the randomness passed in: 0 gives the shortest wait, `u16::MAX` the longest.
pub fn jitter_with(base: Duration, share: u32, random: u16) -> Duration {
    let width = base * share / 100;
    base.saturating_sub(width) + width * 2 * u32::from(random) / u32::from(u16::MAX)
}

/// `first`, doubled with each further `attempt` (from 0), at most `max`.
pub fn exponential(first: Duration, attempt: u32, max: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_share() {
        let base = Duration::from_secs(100);
        assert_eq!(jitter_with(base, 20, 0), Duration::from_secs(80));
        assert_eq!(jitter_with(base, 20, u16::MAX), Duration::from_mins(2));
        assert_eq!(jitter_with(Duration::ZERO, 20, 7), Duration::ZERO);
    }

    #[test]
    fn exponential_doubles_up_to_its_limit() {
        let wait = |attempt| exponential(Duration::from_secs(1), attempt, Duration::from_secs(30));
        assert_eq!([wait(0), wait(1), wait(4), wait(5), wait(900)].map(|d| d.as_secs()), [1, 2, 16, 30, 30]);
    }
}
