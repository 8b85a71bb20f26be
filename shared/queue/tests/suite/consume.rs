//! Listening on RabbitMQ: what a subscription suffers without the connection being lost.

use aig_queue::BrokerError;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;

use crate::support::{Rabbit, counts, ends, id_of, message, next, rabbit, silent};

rabbit!(
    a_message_that_cannot_be_read_has_no_content,
    a_queue_deleted_under_its_listener_ends_the_subscription,
    a_message_that_nobody_takes_is_dropped_in_the_end,
    an_ack_on_a_channel_that_is_gone_is_an_error,
    subscribing_makes_a_queue_that_is_gone,
    counting_makes_a_queue_that_is_gone,
);

async fn a_message_that_cannot_be_read_has_no_content(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    let channel = rabbit.channel().await;
    for body in [&b"\xff\x00 no json"[..], b"", br#"{"queue":7}"#] {
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), rabbit.named("video"), options, body, BasicProperties::default());
        sent.await.unwrap();
    }
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    for _ in 0..3 {
        let delivery = next(&mut listener).await;
        assert_eq!(delivery.message, None);
        delivery.ack().await.unwrap();
    }
    broker.publish(message("video", "a")).await.unwrap();
    assert_eq!(id_of(&next(&mut listener).await), "a", "the subscription goes on");
}

async fn a_queue_deleted_under_its_listener_ends_the_subscription(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    let mut video = broker.subscribe("video", 1).await.unwrap();
    let mut music = broker.subscribe("music", 1).await.unwrap();
    rabbit.delete("video").await;
    ends(&mut video).await;
    assert!(video.next().await.is_none(), "it stays ended");
    assert!(video.try_next().is_none());
    assert_eq!(broker.check().await, Ok(()));
    let mut video = broker.subscribe("video", 1).await.unwrap();
    for (queue, listener) in [("video", &mut video), ("music", &mut music)] {
        broker.publish(message(queue, queue)).await.unwrap();
        assert_eq!(id_of(&next(listener).await), queue);
    }
}

/// Else a message that always fails would go round for ever. The task it stands for is a row, and rings again.
async fn a_message_that_nobody_takes_is_dropped_in_the_end(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    broker.publish(message("video", "a")).await.unwrap();
    for _ in 0..21 {
        drop(next(&mut listener).await);
    }
    silent(&mut listener).await;
    counts(&*broker, "video", 0).await;
}

async fn an_ack_on_a_channel_that_is_gone_is_an_error(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    broker.publish(message("video", "a")).await.unwrap();
    let delivery = next(&mut listener).await;
    broker.close().await;
    assert!(matches!(delivery.ack().await, Err(BrokerError::Unavailable(_))));
}

async fn subscribing_makes_a_queue_that_is_gone(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    rabbit.delete("video").await;
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    broker.publish(message("video", "a")).await.unwrap();
    assert_eq!(id_of(&next(&mut listener).await), "a");
}

async fn counting_makes_a_queue_that_is_gone(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    rabbit.delete("video").await;
    assert_eq!(broker.waiting("video").await, Ok(0));
    broker.publish(message("video", "a")).await.unwrap();
    counts(&*broker, "video", 1).await;
    assert_eq!(broker.waiting("3d").await, Err(BrokerError::Unroutable("3d".into())));
}
