//! What every broker promises. Order is not part of it, nor that two messages stay two.

use std::sync::Arc;
use std::time::Duration;

use aig_queue::{Broker, BrokerError};

use crate::support::{LONG, both, counts, ends, id_of, message, next, silent};

both!(
    a_message_is_received_and_once_acked_never_again,
    a_message_goes_to_its_own_queue,
    prefetch_bounds_what_is_out,
    a_dropped_delivery_comes_again,
    listeners_share_a_queue,
    a_dropped_listener_gives_back_what_it_held,
    a_delivery_outlives_its_listener,
    a_dropped_wait_loses_nothing,
    try_next_gives_what_is_here,
    waiting_counts_what_nobody_took,
    closing_ends_everything,
);

async fn a_message_is_received_and_once_acked_never_again(broker: Arc<dyn Broker>) {
    let mut listener = broker.subscribe("video", 8).await.unwrap();
    broker.publish(message("video", "job_1")).await.unwrap();
    let delivery = next(&mut listener).await;
    assert_eq!(delivery.message, Some(message("video", "job_1")));
    delivery.ack().await.unwrap();
    drop(listener);
    let mut listener = broker.subscribe("video", 8).await.unwrap();
    silent(&mut listener).await;
    counts(&*broker, "video", 0).await;
}

async fn a_message_goes_to_its_own_queue(broker: Arc<dyn Broker>) {
    let mut music = broker.subscribe("music", 8).await.unwrap();
    broker.publish(message("video", "v")).await.unwrap();
    broker.publish(message("music", "m")).await.unwrap();
    assert_eq!(id_of(&next(&mut music).await), "m");
    counts(&*broker, "video", 1).await;
}

async fn prefetch_bounds_what_is_out(broker: Arc<dyn Broker>) {
    for id in ["a", "b", "c"] {
        broker.publish(message("video", id)).await.unwrap();
    }
    let mut listener = broker.subscribe("video", 2).await.unwrap();
    let first = next(&mut listener).await;
    let second = next(&mut listener).await;
    assert!(listener.try_next().is_none());
    silent(&mut listener).await;
    counts(&*broker, "video", 1).await;
    first.ack().await.unwrap();
    let third = next(&mut listener).await;
    let mut ids = [id_of(&second), id_of(&third), "a".to_owned()];
    ids.sort();
    assert_eq!(ids, ["a", "b", "c"]);
}

async fn a_dropped_delivery_comes_again(broker: Arc<dyn Broker>) {
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    broker.publish(message("video", "a")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(id_of(&next(&mut listener).await), "a");
    }
    next(&mut listener).await.ack().await.unwrap();
    silent(&mut listener).await;
}

async fn listeners_share_a_queue(broker: Arc<dyn Broker>) {
    let mut first = broker.subscribe("video", 1).await.unwrap();
    let mut second = broker.subscribe("video", 1).await.unwrap();
    broker.publish(message("video", "a")).await.unwrap();
    broker.publish(message("video", "b")).await.unwrap();
    // Each holds one, so that neither's prefetch speaks for the other.
    let (one, other) = tokio::join!(next(&mut first), next(&mut second));
    let mut ids = [id_of(&one), id_of(&other)];
    ids.sort();
    assert_eq!(ids, ["a", "b"]);
    // What one of them puts back is for the other too.
    drop(one);
    other.ack().await.unwrap();
    let again = tokio::select! {
        delivery = next(&mut first) => delivery,
        delivery = next(&mut second) => delivery,
    };
    again.ack().await.unwrap();
    counts(&*broker, "video", 0).await;
}

async fn a_dropped_listener_gives_back_what_it_held(broker: Arc<dyn Broker>) {
    let mut first = broker.subscribe("video", 8).await.unwrap();
    for id in ["a", "b", "c"] {
        broker.publish(message("video", id)).await.unwrap();
    }
    let held = next(&mut first).await;
    drop(first);
    let mut second = broker.subscribe("video", 8).await.unwrap();
    let (one, other) = (next(&mut second).await, next(&mut second).await);
    let mut ids = [id_of(&held), id_of(&one), id_of(&other)];
    ids.sort();
    assert_eq!(ids, ["a", "b", "c"]);
}

async fn a_delivery_outlives_its_listener(broker: Arc<dyn Broker>) {
    let mut listener = broker.subscribe("video", 8).await.unwrap();
    broker.publish(message("video", "a")).await.unwrap();
    broker.publish(message("video", "b")).await.unwrap();
    let acked = next(&mut listener).await;
    let dropped = next(&mut listener).await;
    let expected = id_of(&dropped);
    drop(listener);
    acked.ack().await.unwrap();
    drop(dropped);
    let mut listener = broker.subscribe("video", 8).await.unwrap();
    let again = next(&mut listener).await;
    assert_eq!(id_of(&again), expected);
    silent(&mut listener).await;
}

async fn a_dropped_wait_loses_nothing(broker: Arc<dyn Broker>) {
    let mut listener = broker.subscribe("video", 8).await.unwrap();
    for round in 0..20 {
        // Some of these waits end in the very moment in which the message comes.
        let wait = Duration::from_micros(150 * round);
        let (published, waited) =
            tokio::join!(broker.publish(message("video", "a")), tokio::time::timeout(wait, listener.next()),);
        published.unwrap();
        let delivery = match waited {
            Ok(delivery) => delivery.unwrap(),
            Err(_) => next(&mut listener).await,
        };
        delivery.ack().await.unwrap();
    }
    silent(&mut listener).await;
    counts(&*broker, "video", 0).await;
}

async fn try_next_gives_what_is_here(broker: Arc<dyn Broker>) {
    let mut listener = broker.subscribe("video", 8).await.unwrap();
    assert!(listener.try_next().is_none());
    broker.publish(message("video", "a")).await.unwrap();
    broker.publish(message("video", "b")).await.unwrap();
    // A look that found nothing does not make the next wait deaf.
    let first = next(&mut listener).await;
    let here = || std::future::ready(listener.try_next());
    let second = aig_testkit::eventually("the second is here", LONG, here).await.unwrap();
    let mut ids = [id_of(&first), id_of(&second)];
    ids.sort();
    assert_eq!(ids, ["a", "b"]);
    assert!(listener.try_next().is_none());
}

async fn waiting_counts_what_nobody_took(broker: Arc<dyn Broker>) {
    counts(&*broker, "video", 0).await;
    for _ in 0..3 {
        broker.publish(message("video", "a")).await.unwrap();
    }
    counts(&*broker, "video", 3).await;
    let mut listener = broker.subscribe("video", 2).await.unwrap();
    let taken = (next(&mut listener).await, next(&mut listener).await);
    counts(&*broker, "video", 1).await;
    drop(taken);
    drop(listener);
    counts(&*broker, "video", 3).await;
}

async fn closing_ends_everything(broker: Arc<dyn Broker>) {
    let mut idle = broker.subscribe("video", 1).await.unwrap();
    let mut busy = broker.subscribe("music", 1).await.unwrap();
    broker.publish(message("music", "a")).await.unwrap();
    let delivery = next(&mut busy).await;
    assert_eq!(broker.check().await, Ok(()));
    let ((), ()) = tokio::join!(ends(&mut idle), broker.close());
    ends(&mut busy).await;
    drop(delivery);
    assert_eq!(broker.publish(message("video", "b")).await, Err(BrokerError::Closed));
    assert_eq!(broker.waiting("video").await, Err(BrokerError::Closed));
    assert_eq!(broker.subscribe("video", 1).await.err(), Some(BrokerError::Closed));
    assert_eq!(broker.check().await, Err(BrokerError::Closed));
    broker.close().await;
}
