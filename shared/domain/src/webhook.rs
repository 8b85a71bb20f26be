//! When a webhook is tried, and when it is given up.

use std::time::Duration;

use crate::retry::jitter;

/// The most attempts at one event: the first at once, the last about a day later.
pub const MAX_ATTEMPTS: u32 = 8;
/// How long a receiver may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits between attempts: the entry at `n` comes after attempt `n + 1` failed.
const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(6),
    Duration::from_hours(15),
];

/// What a receiver's answer means for the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A 2xx in time: done.
    Delivered,
    /// Try again after this long.
    Retry(Duration),
    /// The receiver is gone (410), or the attempts are used up.
    GiveUp,
}

/// What to do after attempt number `attempt` (from 1) was answered with `status`, or with nothing at all.
///
/// `retry_after` is the receiver's own wish in seconds; it is honoured between the scheduled wait and twice of it.
pub fn verdict(attempt: u32, status: Option<u16>, retry_after: Option<u64>) -> Verdict {
    match status {
        Some(200..=299) => return Verdict::Delivered,
        Some(410) => return Verdict::GiveUp,
        _ => {}
    }
    let Some(base) = SCHEDULE.get(attempt.saturating_sub(1) as usize).copied() else { return Verdict::GiveUp };
    let wish = Duration::from_secs(retry_after.unwrap_or(0));
    Verdict::Retry(jitter(base, 20).max(wish.min(base * 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_attempts_over_a_day() {
        assert_eq!(SCHEDULE.len() + 1, MAX_ATTEMPTS as usize);
        let total: Duration = SCHEDULE.iter().sum();
        assert!((Duration::from_hours(23)..Duration::from_hours(25)).contains(&total));
    }

    #[test]
    fn only_2xx_is_success_and_410_ends_it() {
        assert_eq!(verdict(1, Some(204), None), Verdict::Delivered);
        assert_eq!(verdict(1, Some(410), None), Verdict::GiveUp);
        assert_eq!(verdict(8, Some(500), None), Verdict::GiveUp);
        for status in [None, Some(199), Some(301), Some(404), Some(500)] {
            let Verdict::Retry(wait) = verdict(1, status, None) else { panic!("{status:?}") };
            assert!((4..=6).contains(&wait.as_secs()), "{wait:?}");
        }
    }

    #[test]
    fn retry_after_is_bounded_by_twice_the_schedule() {
        assert_eq!(verdict(1, Some(429), Some(10)), Verdict::Retry(Duration::from_secs(10)));
        assert_eq!(verdict(1, Some(429), Some(1_000_000)), Verdict::Retry(Duration::from_secs(10)));
    }
}
