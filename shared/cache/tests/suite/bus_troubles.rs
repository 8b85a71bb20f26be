//! What the bus does when Redis misbehaves: senders never wait, and whoever may have missed something is told.

use std::time::{Duration, Instant};

use aig_cache::{Bus, RedisBus, Signal};
use aig_testkit::eventually;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::bus::{changed, hear};
use crate::server::{absent, calls, cannot_save, command, running};
use crate::support::{Redis, SOON, Stalls, connected};

/// Hears until `wanted` comes.
async fn until(listener: &mut Receiver<Signal>, wanted: &Signal) {
    let heard = async { while !matches!(listener.recv().await, Ok(signal) if signal == *wanted) {} };
    timeout(SOON, heard).await.unwrap();
}

async fn lost(bus: &RedisBus) -> String {
    eventually("the bus has lost Redis", SOON, || async { bus.degraded() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_redis_died_listeners_hear_that_they_missed_signals() {
    let Some((mut server, redis)) = running().await else { return };
    let (here, there) = (redis.ready_bus().await, redis.ready_bus().await);
    let (mut listener, stalls) = (there.listen(), Stalls::measure(&redis.tracker));
    server.kill();
    let begun = Instant::now();
    let reason = lost(&there).await;
    assert!(begun.elapsed() < stalls.allow(Duration::from_millis(200)), "{:?}", begun.elapsed());
    assert!(reason.starts_with("signals do not travel between processes: "), "{reason}");
    there.send(changed(1)).await;
    assert_eq!(hear(&mut listener).await, changed(1), "at home signals go on");
    server.start(&redis).await;
    until(&mut listener, &Signal::Missed).await;
    connected(&here).await;
    here.send(changed(2)).await;
    until(&mut listener, &changed(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_noticed_and_heals() {
    let Some((server, redis)) = running().await else { return };
    let (here, there) = (redis.ready_bus().await, redis.ready_bus().await);
    let mut listener = there.listen();
    server.freeze();
    lost(&there).await;
    server.thaw();
    until(&mut listener, &Signal::Missed).await;
    connected(&here).await;
    here.send(changed(1)).await;
    until(&mut listener, &changed(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_absent_at_the_start() {
    let Some((mut server, redis)) = absent() else { return };
    let (here, there) = (redis.bus(), redis.bus());
    let (mut home, mut away) = (here.listen(), there.listen());
    assert!(here.degraded().is_some());
    here.send(changed(1)).await;
    assert_eq!(hear(&mut home).await, changed(1));
    server.start(&redis).await;
    until(&mut away, &Signal::Missed).await;
    connected(&here).await;
    here.send(changed(2)).await;
    until(&mut away, &changed(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_is_still_heard() {
    let Some((_server, redis)) = running().await else { return };
    let (here, there) = (redis.ready_bus().await, redis.ready_bus().await);
    let mut listener = there.listen();
    cannot_save(&redis).await;
    refused_pings(&redis).await;
    here.send(changed(1)).await;
    assert_eq!(hear(&mut listener).await, changed(1), "nothing was missed, so nobody is told so");

    command(&redis, &["ACL", "SETUSER", "default", "-publish"]).await;
    here.send(changed(2)).await;
    let reason = lost(&here).await;
    assert!(reason.contains("NOPERM") || reason.contains("NoPerm"), "{reason}");
    assert_eq!(there.degraded(), None);
    command(&redis, &["ACL", "SETUSER", "default", "+publish"]).await;
    assert_eq!(hear(&mut listener).await, Signal::Missed);
    connected(&here).await;
}

/// Waits until both buses have asked a Redis that refuses pings whether it is still there.
async fn refused_pings(redis: &Redis) {
    let before = calls(redis, "ping").await;
    let asked = || async { (calls(redis, "ping").await >= before + 4).then_some(()) };
    eventually("pings are refused", SOON, asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_without_delay_and_the_others_hear_of_it() {
    let Some((server, redis)) = running().await else { return };
    let (here, there) = (redis.ready_bus().await, redis.ready_bus().await);
    let mut listener = there.listen();
    let listening = redis.tracker.spawn(async move {
        let mut heard = 0;
        loop {
            match listener.recv().await {
                Ok(Signal::Missed) => return heard,
                Ok(_) => heard += 1,
                Err(RecvError::Lagged(missed)) => heard += missed,
                Err(RecvError::Closed) => panic!("the bus is gone"),
            }
        }
    });
    let stalls = Stalls::measure(&redis.tracker);
    server.freeze();
    let begun = Instant::now();
    let sending = async {
        for version in 0..5_000 {
            here.send(changed(version)).await;
        }
    };
    timeout(SOON, sending).await.unwrap();
    assert!(begun.elapsed() < stalls.allow(Duration::from_millis(250)), "{:?}", begun.elapsed());
    server.thaw();
    let heard = timeout(SOON, listening).await.unwrap().unwrap();
    assert!(heard < 5_000, "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_redis() {
    let Some((server, redis)) = running().await else { return };
    let (bus, dropped) = (redis.ready_bus().await, redis.ready_bus().await);
    let stalls = Stalls::measure(&TaskTracker::new());
    server.freeze();
    bus.send(changed(1)).await;
    let begun = Instant::now();
    drop(dropped);
    bus.close().await;
    redis.tracker.close();
    redis.tracker.wait().await;
    assert!(begun.elapsed() < stalls.allow(Duration::from_millis(1_500)), "{:?}", begun.elapsed());
}
