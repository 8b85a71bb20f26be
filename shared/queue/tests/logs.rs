//! What an operator reads when RabbitMQ is not there: one warning, and never the password.
//!
//! The library under the adapter has to be kept out of the log (`lapin=off`): it logs several errors per try, and at the level
//! TRACE the bytes of the login. A test binary of its own, since it takes over the log of its process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aig_domain::Secret;
use aig_queue::{Broker as _, BrokerError, Message, RabbitBroker, RabbitConfig};
use aig_testkit::{FaultProxy, Mode, eventually};
use tokio_util::task::TaskTracker;

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
    let tracker = TaskTracker::new();
    let config = RabbitConfig { url, prefix: "aig_test_logs.".into(), queues: &["video"] };
    assert!(!format!("{config:?}").contains("topsecret"));
    let broker = RabbitBroker::start(config, &tracker).await.unwrap();
    eventually("several tries", Duration::from_secs(30), async || (proxy.stats().accepted >= 8).then_some(()))
        .await
        .unwrap();
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
