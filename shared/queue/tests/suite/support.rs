//! A broker per test, of either kind; on RabbitMQ with a prefix of its own, whose queues are removed at the end.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aig_domain::{Clock as _, Secret, clock::SystemClock, id};
use aig_queue::{Broker, BrokerError, Delivery, MemoryBroker, Message, RabbitBroker, RabbitConfig, Subscription};
use futures_util::FutureExt as _;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio_util::task::TaskTracker;

/// The queues of every test.
pub const QUEUES: &[&str] = &["video", "music"];
/// More than anything here takes on a busy machine; what is awaited normally comes within milliseconds.
pub const LONG: Duration = Duration::from_secs(20);
/// Long enough for something to come that must not.
pub const MOMENT: Duration = Duration::from_millis(150);

/// Makes one test per broker out of an `async fn(Arc<dyn Broker>)`.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod memory { $(#[test] fn $name() { crate::support::on_memory(|broker| Box::pin(super::$name(broker))); })+ }
        mod rabbit { $(#[test] fn $name() { crate::support::on_rabbit(|rabbit| Box::pin(async { super::$name(rabbit.start().await).await; })); })+ }
    };
}
pub(crate) use both;

/// Makes a test out of an `async fn(&Rabbit)`.
macro_rules! rabbit {
    ($($name:ident),+ $(,)?) => {
        mod rabbit { $(#[test] fn $name() { crate::support::on_rabbit(|rabbit| Box::pin(super::$name(rabbit))); })+ }
    };
}
pub(crate) use rabbit;

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A RabbitMQ, and who may do anything on it.
pub struct Rabbit {
    pub url: String,
    pub prefix: String,
    /// Of the test itself, past the broker under test.
    pub admin: Connection,
    pub tracker: TaskTracker,
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future);
}

pub fn on_memory(body: fn(Arc<dyn Broker>) -> Running<'static>) {
    block_on(body(Arc::new(MemoryBroker::new())));
}

pub fn on_rabbit(body: for<'a> fn(&'a Rabbit) -> Running<'a>) {
    block_on(async {
        let Some(rabbit) = Rabbit::answers().await else { return };
        let outcome = AssertUnwindSafe(body(&rabbit)).catch_unwind().await;
        let channel = rabbit.channel().await;
        for queue in QUEUES {
            channel.queue_delete(rabbit.named(queue), QueueDeleteOptions::default()).await.unwrap();
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Says that a test does not run, or fails when skipping is refused.
pub fn skip(why: &str) {
    assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "{why}");
    // Not `eprintln!`: the test harness would swallow it.
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

impl Rabbit {
    async fn answers() -> Option<Self> {
        let url = std::env::var("AIG_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
        let connecting = Connection::connect(&url, ConnectionProperties::default());
        let admin = match tokio::time::timeout(LONG, connecting).await {
            Ok(Ok(admin)) => admin,
            failed => {
                let why = failed.map_or("it does not answer".into(), |failed| failed.err().unwrap().to_string());
                skip(&format!("no RabbitMQ ({why}); run deploy/services up, or set AIG_TEST_AMQP_URL"));
                return None;
            }
        };
        let prefix = format!("{}.", id::new("aig_test_", SystemClock.now()));
        Some(Self { url, prefix, admin, tracker: TaskTracker::new() })
    }

    /// The name of `queue` on the wire.
    pub fn named<T: From<String>>(&self, queue: &str) -> T {
        format!("{}{queue}", self.prefix).into()
    }

    /// Its host and port, for a proxy.
    pub fn address(&self) -> &str {
        let rest = self.url.rsplit_once('@').map_or("127.0.0.1:5672", |(_, rest)| rest);
        rest.split(['/', '?']).next().unwrap()
    }

    /// Who the tests log in as.
    pub fn user(&self) -> &str {
        self.url.trim_start_matches("amqp://").split(':').next().unwrap()
    }

    pub fn config(&self, url: &str) -> RabbitConfig {
        RabbitConfig { url: Secret::new(url), prefix: self.prefix.clone(), queues: QUEUES }
    }

    /// A broker that is connected.
    pub async fn start(&self) -> Arc<dyn Broker> {
        let broker = self.start_at(&self.url).await;
        connected(&*broker).await;
        broker
    }

    /// A broker that may be connected or not.
    pub async fn start_at(&self, url: &str) -> Arc<dyn Broker> {
        Arc::new(RabbitBroker::start(self.config(url), &self.tracker).await.unwrap())
    }

    /// A channel of the test's own.
    pub async fn channel(&self) -> Channel {
        self.admin.create_channel().await.unwrap()
    }

    pub async fn delete(&self, queue: &str) {
        self.channel().await.queue_delete(self.named(queue), QueueDeleteOptions::default()).await.unwrap();
    }

    /// Whether the queue is there.
    pub async fn has(&self, queue: &str) -> bool {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.channel().await.queue_declare(self.named(queue), passive, FieldTable::default()).await.is_ok()
    }
}

pub fn message(queue: &str, id: &str) -> Message {
    Message { queue: queue.into(), trace: vec![id.into()] }
}

/// The first id of its trace.
pub fn id_of(delivery: &Delivery) -> String {
    delivery.message.as_ref().unwrap().trace[0].clone()
}

/// The next message, which must come.
pub async fn next(listener: &mut Box<dyn Subscription>) -> Delivery {
    tokio::time::timeout(LONG, listener.next()).await.expect("a message comes").expect("the subscription holds")
}

/// The subscription ends, whatever it still gives before.
pub async fn ends(listener: &mut Box<dyn Subscription>) {
    let ended = async { while listener.next().await.is_some() {} };
    tokio::time::timeout(LONG, ended).await.expect("the subscription ends");
}

/// Nothing comes for a moment.
pub async fn silent(listener: &mut Box<dyn Subscription>) {
    assert!(tokio::time::timeout(MOMENT, listener.next()).await.is_err(), "nothing comes");
}

pub async fn counts(broker: &dyn Broker, queue: &str, expected: u64) {
    let what = format!("{expected} wait in {queue}");
    aig_testkit::eventually(&what, LONG, async || (broker.waiting(queue).await == Ok(expected)).then_some(()))
        .await
        .unwrap();
}

/// The broker says that it is connected.
pub async fn connected(broker: &dyn Broker) {
    aig_testkit::eventually("it is connected", LONG, async || broker.check().await.ok()).await.unwrap();
}

/// The broker says that it is not connected, and why.
pub async fn disconnected(broker: &dyn Broker) -> BrokerError {
    aig_testkit::eventually("it is not connected", LONG, async || broker.check().await.err()).await.unwrap()
}
