//! What an operator sees of RabbitMQ: one warning when it is not there, never the password, and a gauge per connection.
//!
//! The library under the adapter has to be kept out of the log (`lapin=off`): it logs several errors per try, and at the level
//! TRACE the bytes of the login. A test binary of its own, with one test, since it takes over the log of its process; on one
//! thread, whose gauges it watches.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aig_domain::Secret;
use aig_queue::{Broker as _, BrokerError, Message, RabbitBroker, RabbitConfig};
use aig_testkit::{FaultProxy, Mode, eventually};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::task::TaskTracker;

const LONG: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_an_operator_sees() {
    an_outage_is_one_warning_and_the_password_is_in_no_line().await;
    the_gauges_follow_the_connections().await;
}

async fn an_outage_is_one_warning_and_the_password_is_in_no_line() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("trace,lapin=off")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    // Nothing listens behind the proxy, which is there to count the tries.
    let proxy = FaultProxy::start("127.0.0.1:1").await.unwrap();
    proxy.set(Mode::Refuse);
    let url = Secret::new(proxy.url_of("amqp://guest:topsecret@host/%2f"));
    let config = RabbitConfig { url, prefix: "aig_test_log.".into(), queues: &["video"] };
    assert!(!format!("{config:?}").contains("topsecret"));
    let tracker = TaskTracker::new();
    let broker = RabbitBroker::start(config, &tracker).await.unwrap();
    eventually("several tries", LONG, async || (proxy.stats().accepted >= 8).then_some(())).await.unwrap();
    let refused = broker.publish(Message { queue: "video".into(), trace: Vec::new() }).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Unavailable(_)));
    broker.close().await;
    tracker.close();
    tracker.wait().await;

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let loud = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    let warnings: Vec<&str> = text.lines().filter(loud).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("jobs are accepted"), "{warnings:?}");
    assert!(text.contains("aig_queue") && !text.contains("topsecret"));
}

async fn the_gauges_follow_the_connections() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _watching = metrics::set_default_local_recorder(&recorder);
    let gauges = |value: u8| {
        let text = recorder.handle().render();
        let is = |name: &str| text.contains(&format!("aig_broker_connected{{connection=\"{name}\"}} {value}"));
        (is("publish") && is("consume")).then_some(())
    };
    let url = std::env::var("AIG_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let address = url.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
    if let Err(error) = tokio::net::TcpStream::connect(&address).await {
        assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "no RabbitMQ at {address}: {error}");
        // Not `eprintln!`: the test harness would swallow it.
        return io::stderr().write_all(b"SKIPPED: no RabbitMQ; run deploy/services up\n").unwrap();
    }
    let proxy = FaultProxy::start(address).await.unwrap();
    proxy.set(Mode::Refuse);
    let config = RabbitConfig { url: Secret::new(proxy.url_of(&url)), prefix: "aig_test_gauge.".into(), queues: &[] };
    let tracker = TaskTracker::new();
    let broker = RabbitBroker::start(config, &tracker).await.unwrap();
    gauges(0).unwrap();
    proxy.set(Mode::Pass);
    eventually("both are up", LONG, async || gauges(1)).await.unwrap();
    proxy.set(Mode::Refuse);
    eventually("both are down", LONG, async || gauges(0)).await.unwrap();
    proxy.set(Mode::Pass);
    eventually("both are up again", LONG, async || gauges(1)).await.unwrap();
    broker.close().await;
    gauges(0).unwrap();
}
