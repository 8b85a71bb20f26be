//! Publishing to RabbitMQ: only what the broker confirmed counts as published.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use aig_queue::BrokerError;
use aig_testkit::{FaultProxy, Mode};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};

use crate::support::{LONG, Rabbit, connected, message, next, rabbit};

rabbit!(
    what_is_on_the_wire,
    a_queue_nobody_named_is_unroutable,
    unroutable_is_an_error_and_the_queue_comes_back,
    a_full_queue_says_so,
    what_waits_together_travels_together,
);

async fn what_is_on_the_wire(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    broker.publish(message("video", "job_1")).await.unwrap();
    let got = rabbit.channel().await.basic_get(rabbit.named("video"), BasicGetOptions { no_ack: true }).await;
    let got = got.unwrap().unwrap();
    assert_eq!(got.data, br#"{"queue":"video","trace":["job_1"]}"#);
    assert_eq!(*got.properties.delivery_mode(), Some(2), "it survives a restart of the broker");
}

async fn a_queue_nobody_named_is_unroutable(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    assert_eq!(broker.publish(message("3d", "a")).await, Err(BrokerError::Unroutable("3d".into())));
    connected(&*broker).await;
}

/// The broker confirms what it could not route, too. Many messages are under way at once, some of which could be routed.
async fn unroutable_is_an_error_and_the_queue_comes_back(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    rabbit.delete("video").await;
    let all = (0..100).map(|n| {
        let queue = if n % 2 == 0 { "video" } else { "music" };
        let broker = &broker;
        async move { (queue, broker.publish(message(queue, "a")).await) }
    });
    let begun = Instant::now();
    let mut unroutable = 0;
    for (queue, result) in join_all(all).await {
        match (queue, result) {
            ("video", Err(BrokerError::Unroutable(queue))) => {
                assert_eq!(queue, "video");
                unroutable += 1;
            }
            ("music", Ok(())) | (_, Err(BrokerError::Unavailable(_))) => {}
            unexpected => panic!("{unexpected:?}"),
        }
    }
    assert!(unroutable > 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let published = async || broker.publish(message("video", "b")).await.ok();
    aig_testkit::eventually("the queue is made again", LONG, published).await.unwrap();
    assert!(rabbit.has("video").await);
}

async fn a_full_queue_says_so(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    let channel = rabbit.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut confirms = FuturesUnordered::new();
    for _ in 0..10_500 {
        if confirms.len() >= 256 {
            let _ = confirms.next().await;
        }
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), rabbit.named("video"), options, b"x", BasicProperties::default());
        confirms.push(sent.await.unwrap());
    }
    while confirms.next().await.is_some() {}
    assert_eq!(broker.publish(message("video", "a")).await, Err(BrokerError::Full("video".into())));
    broker.publish(message("music", "a")).await.unwrap();
    assert_eq!(broker.check().await, Ok(()), "a full queue is no reason to connect again");
}

async fn what_waits_together_travels_together(rabbit: &Rabbit) {
    let proxy = FaultProxy::start(rabbit.address()).await.unwrap();
    let broker = rabbit.start_at(&proxy.url_of(&rabbit.url)).await;
    connected(&*broker).await;
    proxy.set(Mode::Latency(Duration::from_millis(50)));
    let ids: Vec<String> = (0..1000).map(|n| format!("job_{n}")).collect();
    let begun = Instant::now();
    for result in join_all(ids.iter().map(|id| broker.publish(message("video", id)))).await {
        result.unwrap();
    }
    // A confirm takes 100 ms; one after the other they would take 100 s.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    proxy.set(Mode::Pass);
    let waiting = broker.waiting("video").await.unwrap();
    assert!((1..=100).contains(&waiting), "{waiting}");
    let mut listener = broker.subscribe("video", 1000).await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..waiting {
        let delivery = next(&mut listener).await;
        let trace = &delivery.message.as_ref().unwrap().trace;
        assert!((1..=64).contains(&trace.len()), "{}", trace.len());
        seen.extend(trace.clone());
        delivery.ack().await.unwrap();
    }
    assert!(seen.len() > 1);
    assert!(seen.is_subset(&ids.into_iter().collect()));
}

/// Not a test of right and wrong: `cargo test --release -p aig-queue -- --ignored --nocapture rate`.
#[test]
#[ignore = "a measurement"]
fn rate() {
    async fn measure(rabbit: &Rabbit) {
        use std::io::Write as _;
        let broker = rabbit.start().await;
        for callers in [1, 16, 256, 2048] {
            let deadline = Instant::now() + Duration::from_secs(2);
            let published = join_all((0..callers).map(|_| async {
                let mut published = 0_u32;
                while Instant::now() < deadline {
                    published += u32::from(
                        broker.publish(message("video", "job_019a0000000070008000000000000000")).await.is_ok(),
                    );
                }
                published
            }));
            let published: u32 = published.await.into_iter().sum();
            let messages = broker.waiting("video").await.unwrap();
            let line = format!("{callers} callers: {} published/s in {messages} messages\n", published / 2);
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            let purge = lapin::options::QueuePurgeOptions::default();
            rabbit.channel().await.queue_purge(rabbit.named("video"), purge).await.unwrap();
        }
        broker.close().await;
    }
    crate::support::on_rabbit(|rabbit| Box::pin(measure(rabbit)));
}
