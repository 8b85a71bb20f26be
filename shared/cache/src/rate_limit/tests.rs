//! The arithmetic of token buckets: examples, and properties over any order of calls.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;
/// Some time in 2027; a bucket must not care.
const BEGIN: u64 = 1_800_000_000 * SECOND;

fn limit(per_minute: u32) -> RateLimit {
    RateLimit { per_minute }
}

#[test]
fn a_third_of_a_minute_comes_at_once_and_then_the_rate() {
    let shape = Shape::whole(limit(10));
    let mut bucket = shape.full(BEGIN);
    let mut allowed = [0; 2];
    for now in [BEGIN; 10] {
        allowed[0] += u32::from(take(shape, &mut bucket, now).0);
    }
    for second in 1..=60 {
        allowed[1] += u32::from(take(shape, &mut bucket, BEGIN + second * SECOND).0);
    }
    assert_eq!(allowed, [4, 10]);
}

#[test]
fn a_decision_tells_what_is_left_and_how_long_to_wait() {
    let shape = Shape::whole(limit(10));
    let told = |allowed, level| shape.decision(limit(10), allowed, level);
    let (allowed, level) = take(shape, &mut shape.full(BEGIN), BEGIN);
    let reset = Duration::from_secs(6);
    let first = Decision { allowed: true, limit: 10, remaining: 3, reset, retry_after: Duration::ZERO };
    assert_eq!(told(allowed, level), first);
    let (reset, retry_after) = (Duration::from_secs(24), Duration::from_secs(6));
    assert_eq!(told(false, 0), Decision { allowed: false, limit: 10, remaining: 0, reset, retry_after });
    assert_eq!(told(false, TOKEN - 1).retry_after, Duration::from_micros(1), "never zero when refused");
}

#[test]
fn the_smallest_and_the_largest_limit_work() {
    assert_eq!(Shape::whole(limit(0)), Shape::whole(limit(1)));
    for per_minute in [1, 2, u32::MAX] {
        let shape = Shape::whole(limit(per_minute));
        let taken = take(shape, &mut Bucket { level: 0, at: 0 }, u64::MAX);
        assert_eq!(taken, (true, shape.capacity - TOKEN), "{per_minute}");
    }
}

#[test]
fn a_lower_limit_counts_at_once() {
    let (old, new) = (Shape::whole(limit(600)), Shape::whole(limit(10)));
    assert_eq!(take(new, &mut old.full(BEGIN), BEGIN), (true, 3 * TOKEN));
}

#[test]
fn a_clock_that_went_far_back_does_not_freeze_a_bucket() {
    let shape = Shape::whole(limit(60));
    let hour_ago = BEGIN - 3600 * SECOND;
    let mut bucket = Bucket { level: 0, at: BEGIN };
    assert!(!take(shape, &mut bucket, hour_ago).0);
    assert!(take(shape, &mut bucket, hour_ago + SECOND).0);
}

/// Calls: how long after the one before, sometimes a little earlier than it.
fn calls() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![3 => Just(0), 3 => 0..2_000_i64, 3 => 0..3_000_000_i64, 1 => -900_000..0_i64];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #[test]
    fn no_stretch_of_time_admits_too_much(per_minute in prop_oneof![1..20_u32, 1..100_000_u32], steps in calls()) {
        let shape = Shape::whole(limit(per_minute));
        let (mut bucket, mut now, mut latest) = (shape.full(BEGIN), BEGIN, BEGIN);
        let mut admitted = Vec::new();
        for step in steps {
            // The clock may go back a little, but not further and further.
            now = now.saturating_add_signed(step).max(latest - 900_000);
            latest = latest.max(now);
            let (allowed, level) = take(shape, &mut bucket, now);
            prop_assert!(level <= shape.capacity && bucket.level <= level);
            admitted.extend(allowed.then_some(latest));
        }
        for (from, begin) in admitted.iter().enumerate() {
            for (to, end) in admitted.iter().enumerate().skip(from) {
                let taken = (to - from + 1) as u64 * TOKEN;
                prop_assert!(taken <= shape.capacity + (end - begin) * u64::from(shape.rate));
            }
        }
    }

    #[test]
    fn retry_after_is_exact(per_minute in 1..100_000_u32, level in 0..TOKEN) {
        let shape = Shape::whole(limit(per_minute));
        let mut bucket = Bucket { level, at: BEGIN };
        prop_assert_eq!(take(shape, &mut bucket, BEGIN), (false, level));
        let wait = shape.decision(limit(per_minute), false, level).retry_after;
        let wait = u64::try_from(wait.as_micros()).unwrap();
        prop_assert!(!take(shape, &mut bucket, BEGIN + wait - 1).0);
        prop_assert!(take(shape, &mut bucket, BEGIN + wait).0);
    }

    #[test]
    fn shares_add_up_to_no_more_than_the_whole(per_minute in 1..100_000_u32, processes in 1..40_u32) {
        let (whole, share) = (Shape::whole(limit(per_minute)), Shape::share(limit(per_minute), processes));
        prop_assert!(share.rate * processes <= whole.rate || share.rate == 1);
        prop_assert!(share.capacity * u64::from(processes) <= whole.capacity || share.capacity == TOKEN);
        prop_assert!(share.rate >= 1 && share.capacity >= TOKEN);
    }
}
