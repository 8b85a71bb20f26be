//! The queues on RabbitMQ: what they are, and what happens when somebody else made them otherwise.

use aig_queue::{BrokerError, RabbitBroker};
use aig_testkit::FaultProxy;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use crate::support::{LONG, Rabbit, connected, rabbit};

rabbit!(what_the_queues_are, a_queue_made_otherwise_is_one_clear_error, and_is_told_later_too);

const DURABLE: QueueDeclareOptions =
    QueueDeclareOptions { durable: true, passive: false, exclusive: false, auto_delete: false, nowait: false };

/// Brokers out there hold queues with these settings. Who changes one needs other names for the queues.
async fn what_the_queues_are(rabbit: &Rabbit) {
    let broker = rabbit.start().await;
    let mut settings = FieldTable::default();
    settings.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    settings.insert("x-max-length".into(), AMQPValue::LongInt(10_000));
    settings.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    settings.insert("x-delivery-limit".into(), AMQPValue::LongInt(20));
    for queue in ["video", "music"] {
        let declared = rabbit.channel().await.queue_declare(rabbit.named(queue), DURABLE, settings.clone()).await;
        assert_eq!(declared.unwrap().message_count(), 0);
    }
    broker.close().await;
}

async fn a_queue_made_otherwise_is_one_clear_error(rabbit: &Rabbit) {
    let name: String = rabbit.named("music");
    let classic = rabbit.channel().await.queue_declare(name.as_str().into(), DURABLE, FieldTable::default()).await;
    classic.unwrap();
    let refused = RabbitBroker::start(rabbit.config(&rabbit.url), &rabbit.tracker).await;
    let Err(BrokerError::Topology(text)) = refused else { panic!("{:?}", refused.err()) };
    assert!(text.contains(&format!("`{name}`")), "it names the queue: {text}");
    assert!(text.contains("delete it"), "it says what to do: {text}");
    // Nothing of it goes on.
    rabbit.tracker.close();
    tokio::time::timeout(LONG, rabbit.tracker.wait()).await.unwrap();
}

async fn and_is_told_later_too(rabbit: &Rabbit) {
    let proxy = FaultProxy::start(rabbit.address()).await.unwrap();
    let broker = rabbit.start_at(&proxy.url_of(&rabbit.url)).await;
    connected(&*broker).await;
    rabbit.delete("music").await;
    rabbit.channel().await.queue_declare(rabbit.named("music"), DURABLE, FieldTable::default()).await.unwrap();
    assert!(matches!(broker.waiting("music").await, Err(BrokerError::Topology(_))));
    assert!(matches!(broker.subscribe("music", 1).await.err(), Some(BrokerError::Topology(_))));
    proxy.cut();
    let told = async || matches!(broker.check().await, Err(BrokerError::Topology(_))).then_some(());
    aig_testkit::eventually("it says that a queue is wrong", LONG, told).await.unwrap();
    rabbit.delete("music").await;
    connected(&*broker).await;
    broker.publish(crate::support::message("music", "a")).await.unwrap();
}
