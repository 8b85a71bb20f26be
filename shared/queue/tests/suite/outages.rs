//! RabbitMQ goes away, freezes, refuses or comes back empty: what is asked of the broker fails in time, and it comes back by
//! itself. A frozen process, a stopped one and a network that fails look like one of the proxy's modes.

use std::process::Command;
use std::time::{Duration, Instant};

use aig_queue::{BrokerError, RabbitBroker};
use aig_testkit::{FaultProxy, Mode, eventually};
use futures_util::future::join_all;
use lapin::{Connection, ConnectionProperties};
use tokio::io::AsyncReadExt as _;

use crate::support::{LONG, Rabbit, connected, disconnected, ends, id_of, message, next, rabbit, skip};

rabbit!(
    it_starts_without_a_broker_and_connects_later,
    it_starts_beside_a_listener_that_says_nothing,
    what_the_broker_refuses_is_told_without_the_password,
    a_lost_connection_comes_back,
    a_frozen_broker_costs_time_and_nothing_else,
    a_frozen_broker_is_noticed_by_who_only_listens,
    a_vhost_deleted_and_made_again,
    closing_does_not_wait_for_a_frozen_broker,
);

/// The confirm's five seconds and some for a busy machine.
const IN_TIME: Duration = Duration::from_secs(9);

async fn it_starts_without_a_broker_and_connects_later(rabbit: &Rabbit) {
    let proxy = FaultProxy::start(rabbit.address()).await.unwrap();
    proxy.set(Mode::Refuse);
    let begun = Instant::now();
    let broker = rabbit.start_at(&proxy.url_of(&rabbit.url)).await;
    assert!(matches!(broker.publish(message("video", "a")).await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(broker.waiting("video").await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(broker.check().await, Err(BrokerError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(4), "it fails fast: {:?}", begun.elapsed());
    let later = async {
        proxy.set(Mode::Pass);
        connected(&*broker).await;
        broker.publish(message("video", "b")).await.unwrap();
    };
    // Who subscribes meanwhile waits for the connection.
    let (listener, ()) = tokio::join!(broker.subscribe("video", 1), later);
    assert_eq!(id_of(&next(&mut listener.unwrap()).await), "b");
}

/// `connect` of the library never returns here, and would keep a thread and a socket for ever.
async fn it_starts_beside_a_listener_that_says_nothing(rabbit: &Rabbit) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://guest:guest@{}/%2f", listener.local_addr().unwrap());
    let begun = Instant::now();
    let (broker, hung_up) = tokio::join!(rabbit.start_at(&url), async {
        let ((mut first, _), (mut second, _)) = (listener.accept().await.unwrap(), listener.accept().await.unwrap());
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let both = async { tokio::join!(first.read_to_end(&mut one), second.read_to_end(&mut other)) };
        tokio::time::timeout(IN_TIME, both).await.is_ok()
    });
    assert!(hung_up, "both sockets are closed when connecting is given up");
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    let refused = broker.subscribe("video", 1).await.err();
    assert!(matches!(refused, Some(BrokerError::Unavailable(_))), "{refused:?}");
    assert!(begun.elapsed() < 2 * IN_TIME, "{:?}", begun.elapsed());
    broker.close().await;
}

async fn what_the_broker_refuses_is_told_without_the_password(rabbit: &Rabbit) {
    let base = format!("{}/no_such_vhost", rabbit.url.rsplit_once('/').unwrap().0);
    let stranger = format!("amqp://stranger:topsecret@{}/%2f", rabbit.address());
    let nobody = "amqp://guest:topsecret@127.0.0.1:1/%2f".to_owned();
    let mut told = Vec::new();
    for url in [base, stranger, nobody] {
        let broker = rabbit.start_at(&url).await;
        let Err(BrokerError::Unavailable(text)) = broker.check().await else { panic!("{url}") };
        told.push(text);
        broker.close().await;
    }
    assert!(told[0].contains("no_such_vhost"), "{told:?}");
    assert!(told[1].contains("ACCESS_REFUSED"), "{told:?}");
    assert!(told.iter().all(|text| !text.contains("topsecret")), "{told:?}");
    for bad in ["http://guest:topsecret@127.0.0.1", "amqp://guest:topsecret@[", "topsecret"] {
        let refused = RabbitBroker::start(rabbit.config(bad), &rabbit.tracker).await.err();
        assert_eq!(refused, Some(BrokerError::Url));
    }
    assert!(!BrokerError::Url.to_string().contains("topsecret"));
}

async fn a_lost_connection_comes_back(rabbit: &Rabbit) {
    let proxy = FaultProxy::start(rabbit.address()).await.unwrap();
    let broker = rabbit.start_at(&proxy.url_of(&rabbit.url)).await;
    connected(&*broker).await;
    for round in ["first", "second"] {
        let mut listener = broker.subscribe("video", 4).await.unwrap();
        broker.publish(message("video", round)).await.unwrap();
        let delivery = next(&mut listener).await;
        proxy.set(Mode::Refuse);
        ends(&mut listener).await;
        drop(delivery);
        assert!(matches!(disconnected(&*broker).await, BrokerError::Unavailable(_)));
        let begun = Instant::now();
        assert!(broker.publish(message("video", "lost")).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(1), "it fails fast: {:?}", begun.elapsed());
        proxy.set(Mode::Pass);
        connected(&*broker).await;
        let mut listener = broker.subscribe("video", 4).await.unwrap();
        let again = next(&mut listener).await;
        assert_eq!(id_of(&again), round, "what was not acknowledged comes again");
        again.ack().await.unwrap();
    }
}

async fn a_frozen_broker_costs_time_and_nothing_else(rabbit: &Rabbit) {
    let proxy = FaultProxy::start(rabbit.address()).await.unwrap();
    let broker = rabbit.start_at(&proxy.url_of(&rabbit.url)).await;
    connected(&*broker).await;
    proxy.set(Mode::Stall);
    let begun = Instant::now();
    let (published, counted) =
        tokio::join!(join_all((0..20_000).map(|_| broker.publish(message("video", "a")))), broker.waiting("video"),);
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    assert!(published.iter().all(Result::is_err));
    let full = published.iter().filter(|result| matches!(result, Err(BrokerError::Full(_)))).count();
    assert!(full > 0, "what waits is bounded");
    assert!(matches!(counted, Err(BrokerError::Unavailable(_))), "{counted:?}");
    proxy.set(Mode::Pass);
    let published = async || broker.publish(message("video", "b")).await.ok();
    eventually("publishing works again", LONG, published).await.unwrap();
    connected(&*broker).await;
    eventually("the old connections are closed", LONG, async || (proxy.stats().open == 2).then_some(())).await.unwrap();
}

async fn a_frozen_broker_is_noticed_by_who_only_listens(rabbit: &Rabbit) {
    let proxy = FaultProxy::start(rabbit.address()).await.unwrap();
    let broker = rabbit.start_at(&format!("{}?heartbeat=2", proxy.url_of(&rabbit.url))).await;
    let subscribed = async || broker.subscribe("video", 1).await.ok();
    let mut listener = eventually("it listens", LONG, subscribed).await.unwrap();
    proxy.set(Mode::Stall);
    ends(&mut listener).await;
    disconnected(&*broker).await;
    proxy.set(Mode::Pass);
    let mut listener = eventually("it listens again", LONG, subscribed).await.unwrap();
    connected(&*broker).await;
    broker.publish(message("video", "a")).await.unwrap();
    assert_eq!(id_of(&next(&mut listener).await), "a");
}

fn rabbitmqctl(args: &[&str]) -> bool {
    Command::new("rabbitmqctl").arg("-q").args(args).output().is_ok_and(|done| done.status.success())
}

/// A vhost of one test, on the local RabbitMQ.
struct Vhost<'a> {
    name: &'a str,
    user: &'a str,
}

impl Vhost<'_> {
    fn make(&self) -> bool {
        rabbitmqctl(&["add_vhost", self.name])
            && rabbitmqctl(&["set_permissions", "-p", self.name, self.user, ".*", ".*", ".*"])
    }

    fn delete(&self) -> bool {
        rabbitmqctl(&["delete_vhost", self.name])
    }
}

impl Drop for Vhost<'_> {
    fn drop(&mut self) {
        self.delete();
    }
}

/// Everything on the broker is gone, the queues too, as after a wipe.
async fn a_vhost_deleted_and_made_again(rabbit: &Rabbit) {
    let vhost = Vhost { name: rabbit.prefix.trim_end_matches('.'), user: rabbit.user() };
    let url = format!("{}/{}", rabbit.url.rsplit_once('/').unwrap().0, vhost.name);
    if !vhost.make() || Connection::connect(&url, ConnectionProperties::default()).await.is_err() {
        return skip("rabbitmqctl cannot make a vhost on the RabbitMQ under test");
    }
    let broker = rabbit.start_at(&url).await;
    connected(&*broker).await;
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    broker.publish(message("video", "a")).await.unwrap();
    next(&mut listener).await.ack().await.unwrap();

    assert!(rabbitmqctl(&["close_all_connections", "--vhost", vhost.name, "by a test"]));
    ends(&mut listener).await;
    connected(&*broker).await;
    let mut listener = broker.subscribe("video", 1).await.unwrap();

    assert!(vhost.delete());
    ends(&mut listener).await;
    assert!(broker.publish(message("video", "lost")).await.is_err());
    disconnected(&*broker).await;
    assert!(vhost.make());
    connected(&*broker).await;
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    broker.publish(message("video", "b")).await.unwrap();
    assert_eq!(id_of(&next(&mut listener).await), "b");
    broker.close().await;
}

async fn closing_does_not_wait_for_a_frozen_broker(rabbit: &Rabbit) {
    let proxy = FaultProxy::start(rabbit.address()).await.unwrap();
    let broker = rabbit.start_at(&proxy.url_of(&rabbit.url)).await;
    connected(&*broker).await;
    let mut listener = broker.subscribe("video", 1).await.unwrap();
    proxy.set(Mode::Stall);
    let begun = Instant::now();
    let (published, ()) = tokio::join!(broker.publish(message("video", "a")), async {
        tokio::task::yield_now().await;
        broker.close().await;
    });
    assert!(published.is_err());
    ends(&mut listener).await;
    drop(listener);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    rabbit.tracker.close();
    tokio::time::timeout(LONG, rabbit.tracker.wait()).await.expect("nothing of it goes on");
}
