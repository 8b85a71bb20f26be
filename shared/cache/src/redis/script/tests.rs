//! The script against the arithmetic it repeats, on the Redis of `AIG_TEST_REDIS_URL` (default the local one).

use std::io::Write as _;
use std::time::Duration;

use aig_domain::{Clock as _, clock, id, retry};

use super::*;
use crate::rate_limit::{RateLimit, take};

/// A connection, and a prefix of this test's own.
async fn redis() -> Option<(MultiplexedConnection, String)> {
    let url = std::env::var("AIG_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let config = ::redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let connected = async { ::redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await };
    match connected.await {
        Ok(connection) => Some((connection, id::new("aig_test_", clock::SystemClock.now()))),
        Err(error) if std::env::var("AIG_TEST_REFUSE_SKIP").is_ok() => panic!("no Redis: {error}"),
        Err(_) => {
            // Not `eprintln!`: the test harness would swallow it.
            std::io::stderr().write_all(b"SKIPPED: no Redis; run deploy/services up\n").unwrap();
            None
        }
    }
}

async fn delete(connection: &mut MultiplexedConnection, key: &str) {
    ::redis::cmd("DEL").arg(key).exec_async(connection).await.unwrap();
}

#[tokio::test]
async fn it_decides_as_the_arithmetic_does() {
    let Some((mut connection, key)) = redis().await else { return };
    // The same script, except that the time is passed in, and nothing is forgotten because of the time outside.
    let timed = SOURCE.replace("redis.call('TIME')", "{ARGV[5], ARGV[6]}");
    let timed = timed.replace("local until_full = ", "local until_full = 600000 + ");
    assert!(timed.contains("ARGV[6]") && timed.contains("600000"));
    for per_minute in [1, 2, 3, 7, 10, 600, 30_000, 4_000_000] {
        delete(&mut connection, &key).await;
        let shape = Shape::whole(RateLimit { per_minute });
        let mut now = 1_800_000_000_000_000;
        let mut bucket = None;
        for round in 0..200_u64 {
            // Steps of every size, some of them none, some small ones back, few far ones back.
            let random = u16::from_le_bytes(id::random_bytes());
            now = match random % 16 {
                0..4 => now,
                4 => now - u64::from(random),
                5 if round % 50 == 0 => now - 7_200_000_000,
                6 => now + u64::try_from(retry::jitter_with(Duration::from_secs(5), 100, random).as_micros()).unwrap(),
                _ => now + u64::from(random) * 7,
            };
            let bucket = bucket.get_or_insert(shape.full(now));
            let expected = take(shape, bucket, now);
            let mut command = Script::command("EVAL", &timed, &key, shape);
            command.arg(now / 1_000_000).arg(now % 1_000_000);
            let found: (bool, u64) = command.query_async(&mut connection).await.unwrap();
            assert_eq!(found, expected, "{per_minute} per minute, round {round}");
        }
    }
    delete(&mut connection, &key).await;
}

#[tokio::test]
async fn a_bucket_is_forgotten_when_it_is_full_again() {
    let Some((mut connection, key)) = redis().await else { return };
    let shape = Shape::whole(RateLimit { per_minute: 60 });
    assert_eq!(Script::new().take(&mut connection, &key, shape).await.unwrap().1, 19 * TOKEN);
    let left: u64 = ::redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert!((1_500..=2_000).contains(&left), "{left} ms");
    delete(&mut connection, &key).await;
}

#[tokio::test]
async fn a_script_that_redis_does_not_know_is_brought_along() {
    let Some((mut connection, key)) = redis().await else { return };
    // A script that nobody has used, instead of making Redis forget the one that other tests use.
    let script = Script::of(format!("{SOURCE}\n-- {key}\n"));
    let known = async |connection: &mut MultiplexedConnection| {
        let answer: Vec<bool> =
            ::redis::cmd("SCRIPT").arg("EXISTS").arg(&script.hash).query_async(connection).await.unwrap();
        answer[0]
    };
    assert!(!known(&mut connection).await);
    let shape = Shape::whole(RateLimit { per_minute: 3 });
    assert!(script.take(&mut connection, &key, shape).await.unwrap().0);
    assert!(known(&mut connection).await);
    assert!(!script.take(&mut connection, &key, shape).await.unwrap().0);
    delete(&mut connection, &key).await;
}
