//! What every bus promises: whoever listens, in this process or another, hears each signal once.

use std::sync::Arc;

use aig_cache::{Bus, MemoryBus, Signal};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use crate::support::{Redis, SOON, both, on_redis};

/// The bus of one process, and what another process has.
struct Form {
    here: Arc<dyn Bus>,
    there: Arc<dyn Bus>,
}

fn memory() -> Form {
    let bus = Arc::new(MemoryBus::new());
    Form { here: bus.clone(), there: bus }
}

async fn on(redis: &Redis) -> Form {
    Form { here: Arc::new(redis.ready_bus().await), there: Arc::new(redis.ready_bus().await) }
}

both!(
    every_listener_hears_a_signal,
    nobody_hears_a_signal_twice,
    many_signals_keep_their_order,
    a_signal_that_nobody_hears_is_no_trouble,
    what_was_sent_before_the_end_is_heard,
);

/// A signal that differs with `number`.
pub fn changed(number: i64) -> Signal {
    Signal::KeyChanged { public_id: number.to_string() }
}

pub async fn hear(listener: &mut Receiver<Signal>) -> Signal {
    timeout(SOON, listener.recv()).await.unwrap().unwrap()
}

async fn every_listener_hears_a_signal(bus: &Form) {
    let mut listeners = [bus.here.listen(), bus.here.listen(), bus.there.listen(), bus.there.listen()];
    let text = "any \"text\"\r\n\u{1f511}".to_owned();
    for signal in
        [Signal::JobCancelled { job_id: text.clone() }, Signal::KeyChanged { public_id: text.clone() }, Signal::Missed]
    {
        bus.here.send(signal.clone()).await;
        for listener in &mut listeners {
            assert_eq!(hear(listener).await, signal);
        }
    }
}

async fn nobody_hears_a_signal_twice(bus: &Form) {
    let (mut here, mut there) = (bus.here.listen(), bus.there.listen());
    bus.here.send(changed(1)).await;
    assert_eq!(hear(&mut there).await, changed(1));
    // An echo would have been on its way before this.
    bus.there.send(changed(2)).await;
    assert_eq!([hear(&mut here).await, hear(&mut here).await], [changed(1), changed(2)]);
    assert_eq!(hear(&mut there).await, changed(2));
    assert!(here.is_empty() && there.is_empty());
}

async fn many_signals_keep_their_order(bus: &Form) {
    let mut there = bus.there.listen();
    for number in 0..1_000 {
        bus.here.send(changed(number)).await;
    }
    for number in 0..1_000 {
        assert_eq!(hear(&mut there).await, changed(number));
    }
}

async fn a_signal_that_nobody_hears_is_no_trouble(bus: &Form) {
    drop(bus.here.listen());
    bus.here.send(changed(1)).await;
    let mut there = bus.there.listen();
    bus.here.send(changed(2)).await;
    while hear(&mut there).await != changed(2) {}
    assert_eq!(bus.here.degraded(), None);
}

async fn what_was_sent_before_the_end_is_heard(bus: &Form) {
    let mut there = bus.there.listen();
    for number in 0..100 {
        bus.here.send(changed(number)).await;
    }
    bus.here.close().await;
    for number in 0..100 {
        assert_eq!(hear(&mut there).await, changed(number));
    }
    let mut here = bus.here.listen();
    bus.here.send(changed(100)).await;
    assert_eq!(hear(&mut here).await, changed(100), "at home it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_makes_no_sense_is_ignored() {
    on_redis(|redis| {
        Box::pin(async move {
            let bus = redis.ready_bus().await;
            let mut listener = bus.listen();
            let mut connection = redis.connection().await;
            let newer = r#"{"from":"b","signal":{"type":"of_version_9"}}"#;
            let known = r#"{"from":"b","signal":{"type":"key_changed","public_id":"1"}}"#;
            for message in [&b""[..], b"\xff\x00", b"{}", newer.as_bytes(), known.as_bytes()] {
                let channel = format!("{}bus", redis.config.prefix);
                ::redis::cmd("PUBLISH").arg(channel).arg(message).exec_async(&mut connection).await.unwrap();
            }
            assert_eq!(hear(&mut listener).await, changed(1));
            assert_eq!(bus.degraded(), None);
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_prefixes_are_other_buses() {
    on_redis(|redis| {
        Box::pin(async move {
            let mut other = Redis::at(redis.config.url.expose());
            other.tracker = redis.tracker.clone();
            let (here, there, elsewhere) = (redis.ready_bus().await, redis.ready_bus().await, other.ready_bus().await);
            let mut listeners = (there.listen(), elsewhere.listen());
            here.send(changed(1)).await;
            assert_eq!(hear(&mut listeners.0).await, changed(1));
            elsewhere.send(changed(2)).await;
            assert_eq!(hear(&mut listeners.1).await, changed(2));
        })
    })
    .await;
}
