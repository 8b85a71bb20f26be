//! The engine beside its statements: how often it rings, what becomes of lost claims, and leases of processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aig_cache::MemoryBus;
use aig_domain::caps::Payer;
use aig_domain::catalog::Modality;
use aig_domain::clock::SystemClock;
use aig_domain::crypto::KeyRing;
use aig_domain::job::{Job, JobError, JobResult, JobStatus, Outcome};
use aig_domain::links::Links;
use aig_domain::{Clock, Nano, Secret, id};
use aig_queue::{Broker, BrokerError, MemoryBroker, Message, Subscription};
use aig_store::{NewJob, Store, StoreConfig};
use aig_tasks::{LeaseTimes, ProcessLease, Role, Tasks};
use async_trait::async_trait;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

struct Engine {
    tasks: Tasks,
    store: Store,
    broker: MemoryBroker,
    _folder: tempfile::TempDir,
}

async fn embedded() -> Engine {
    let broker = MemoryBroker::new();
    with_broker(Arc::new(broker.clone()), broker).await
}

async fn with_broker(used: Arc<dyn Broker>, broker: MemoryBroker) -> Engine {
    let (folder, tracker) = (tempfile::tempdir().unwrap(), TaskTracker::new());
    let url = Secret::new(format!("sqlite:{}", folder.path().join("test.db").display()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Store::connect(&StoreConfig { url, max_connections: 1 }, Arc::clone(&clock), &tracker).await.unwrap();
    store.migrate().await.unwrap();
    let links = Links::new("http://localhost", Arc::new(KeyRing::parse(&KeyRing::generate()).unwrap()));
    let tasks = Tasks::new(store.clone(), used, Arc::new(MemoryBus::new()), clock, links, tracker);
    Engine { tasks, store, broker, _folder: folder }
}

impl Engine {
    /// Stores jobs, without ringing for them.
    async fn accept(&self, count: usize) {
        let now = SystemClock.now();
        let jobs = (0..count).map(|_| NewJob {
            job: Job {
                id: id::new("job_", now),
                account_id: "acc_1".into(),
                payer_id: "acc_1".into(),
                key_id: "key_1".into(),
                request_id: "req_1".into(),
                modality: Modality::Video,
                model: "sandbox/video".into(),
                provider: "sandbox".into(),
                status: JobStatus::Queued,
                params: "{}".into(),
                tag: None,
                metadata: None,
                webhook_url: None,
                progress: None,
                created_at: now,
                updated_at: now,
                completed_at: None,
                cancelled_at: None,
                deadline_at: now.plus(Duration::from_mins(30)),
                expires_at: None,
                error: None,
                result: None,
                price: Nano::ZERO,
                cost: Nano::ZERO,
                version: 1,
            },
            payer: Payer { account_id: "acc_1".into(), sub_account_id: None, key_id: "key_1".into(), tag: None },
            price: None,
            task_id: id::new("task_", now),
            idempotency: None,
        });
        for accepted in join_all(jobs.map(|new| self.store.accept_job(new))).await {
            accepted.unwrap();
        }
    }

    async fn waiting(&self) -> u64 {
        self.broker.waiting("video").await.unwrap()
    }
}

#[tokio::test]
async fn a_backlog_rings_as_often_as_it_takes_to_wake_the_workers() {
    let engine = embedded().await;
    engine.tasks.dispatch().await.unwrap();
    assert_eq!(engine.waiting().await, 0);
    engine.accept(33).await;
    for _ in 0..3 {
        engine.tasks.dispatch().await.unwrap();
        assert_eq!(engine.waiting().await, 3, "also after more ticks");
    }
    engine.accept(2000).await;
    engine.tasks.dispatch().await.unwrap();
    assert_eq!(engine.waiting().await, 64);
}

/// Counts how often it is asked, and never does anything.
#[derive(Default)]
struct DeadBroker(AtomicUsize);

#[async_trait]
impl Broker for DeadBroker {
    async fn publish(&self, _: Message) -> Result<(), BrokerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(BrokerError::Closed)
    }

    async fn subscribe(&self, _: &str, _: usize) -> Result<Box<dyn Subscription>, BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn waiting(&self, _: &str) -> Result<u64, BrokerError> {
        Ok(0)
    }

    async fn check(&self) -> Result<(), BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn close(&self) {}
}

#[tokio::test]
async fn a_tick_stops_ringing_when_the_broker_fails() {
    let broker = Arc::new(DeadBroker::default());
    let engine = with_broker(broker.clone(), MemoryBroker::new()).await;
    engine.accept(100).await;
    engine.tasks.dispatch().await.unwrap();
    assert_eq!(broker.0.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_claim_whose_caller_goes_away_is_released() {
    let engine = embedded().await;
    engine.accept(3).await;
    let heard = engine.tasks.claim("worker_1", "video", 1).await.unwrap();
    {
        let claim = std::pin::pin!(engine.tasks.claim("worker_1", "video", 2));
        assert!(futures_util::poll!(claim).is_pending());
    }
    // In one line with the lost one: when this one is answered, the lost one is too.
    assert!(engine.tasks.claim("worker_1", "video", 9).await.unwrap().is_empty());
    assert_eq!(engine.tasks.release_lost_claims().await.unwrap(), 2);
    assert_eq!(engine.tasks.release_lost_claims().await.unwrap(), 0);
    assert_eq!(engine.tasks.claim("worker_1", "video", 9).await.unwrap().len(), 2);
    assert_eq!(engine.tasks.release_lost_claims().await.unwrap(), 0, "those that were heard of stay");
    assert_eq!(heard.len(), 1);
}

#[tokio::test]
async fn an_end_that_is_tried_again_after_it_was_stored_is_still_its_own() {
    let engine = embedded().await;
    engine.accept(1).await;
    let claimed = engine.tasks.claim("worker_1", "video", 1).await.unwrap().remove(0);
    let aig_store::Work::Generate { job, .. } = &claimed.work else { panic!("{claimed:?}") };
    let completed = |epoch: i64| {
        Outcome::Completed(JobResult {
            filename: "video.mp4".into(),
            content_type: "video/mp4".into(),
            bytes: 3,
            sha256: "00".into(),
            duration: None,
            resolution: None,
            file_key: format!("jobs/x/{epoch}/video.mp4"),
        })
    };
    for _ in 0..2 {
        assert!(engine.tasks.end(&claimed.lease, job, &completed(1), None).await.unwrap().won, "its file is in use");
    }
    let other = engine.tasks.end(&claimed.lease, job, &completed(2), None).await.unwrap();
    assert!(!other.won, "this file is in nobody's use");
    let failed = Outcome::Failed(JobError::new(aig_domain::job::ErrorCode::ProviderError, "no"));
    assert!(!engine.tasks.end(&claimed.lease, job, &failed, None).await.unwrap().won);
}

#[tokio::test]
async fn with_the_embedded_database_a_lease_is_good_for_ever() {
    let engine = embedded().await;
    let config = StoreConfig { url: Secret::new("sqlite:"), max_connections: 1 };
    let (clock, times): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), LeaseTimes::default());
    let mut leases = Vec::new();
    for role in [Role::Api, Role::Worker, Role::Scheduler] {
        let lease = ProcessLease::begin(role, &engine.store, &config, Arc::clone(&clock), times).await.unwrap();
        assert!(lease.is_good() && lease.id().starts_with(role.as_str()));
        leases.push(lease);
    }
    for (role, lease) in [Role::Api, Role::Worker, Role::Scheduler].into_iter().zip(leases) {
        assert_eq!(engine.store.live_processes(role).await.unwrap(), 1);
        lease.end(&engine.store).await.unwrap();
        assert_eq!(engine.store.live_processes(role).await.unwrap(), 0);
    }
}

/// Passes connections to `port` on to `upstream`.
async fn forward(port: u16, upstream: String, tracker: &TaskTracker) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let connections = tracker.clone();
    tracker.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let upstream = upstream.clone();
            connections.spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
}

#[tokio::test]
async fn a_process_registers_when_its_database_is_there_and_keeps_its_lease() {
    let server = std::env::var("AIG_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable".into());
    let Ok(mut admin) = PgConnection::connect(&server).await else {
        assert!(std::env::var("AIG_TEST_REFUSE_SKIP").is_err(), "no PostgreSQL at {server}");
        return;
    };
    let name = id::new("aig_test_", SystemClock.now());
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let mut url: url::Url = server.parse().unwrap();
    url.set_path(&name);
    let upstream = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    let config = StoreConfig { url: Secret::new(url), max_connections: 4 };
    let (tracker, clock): (_, Arc<dyn Clock>) = (TaskTracker::new(), Arc::new(SystemClock));
    let store = Store::connect(&config, Arc::clone(&clock), &tracker).await.unwrap();
    let second = Duration::from_secs(1);
    let times = LeaseTimes { good: second * 2, renew: second / 2, stop: second };

    // Nobody listens on the port yet, and then there is not even a table.
    let lease = ProcessLease::begin(Role::Worker, &store, &config, clock, times).await.unwrap();
    assert!(!lease.is_good());
    forward(port, upstream, &tracker).await;
    store.migrate().await.unwrap();
    let begun = Instant::now();
    while !lease.is_good() {
        assert!(begun.elapsed() < second * 10, "it never registers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = lease.id();
    // For longer than the lease would last without renewal.
    let begun = Instant::now();
    while begun.elapsed() < times.good + second {
        assert_eq!(store.live_processes(Role::Worker).await.unwrap(), 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(lease.is_good());
    assert_eq!(lease.id(), id);
    lease.end(&store).await.unwrap();
    assert_eq!(store.live_processes(Role::Worker).await.unwrap(), 0);
    store.close().await;
    admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
}
