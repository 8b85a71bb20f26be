//! PostgreSQL away at start, restarted, silently cut, and commits that come through late: callers hear of it in time, nothing
//! is done twice or lost, and the store works again by itself.

use std::net::SocketAddr;
use std::time::Duration;

use aig_domain::{Month, Nano, Secret};
use aig_store::{Accepted, ClaimRequest, JobEndTarget, MoneyEnd, Store, StoreConfig, StoreError};
use futures_util::future::join_all;
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::money::{call, ending};
use crate::proxy::{Mode, Proxy};
use crate::support::{TestStore, completed, job_of, payer, postgres};

postgres!(
    a_silent_cut_is_told_in_time_and_heals,
    a_flow_that_died_is_replaced_though_the_network_is_fine,
    a_restart_is_waited_for_and_a_longer_one_is_told_at_once,
    the_server_may_be_away_at_start,
    an_accept_that_comes_through_late_is_one_job,
    an_end_that_comes_through_late_is_won,
    a_claim_that_comes_through_late_is_released,
    a_reservation_that_comes_through_late_is_one,
    a_charge_that_comes_through_late_is_one,
);

/// No caller waits for longer, whatever happens.
const IN_TIME: Duration = Duration::from_secs(11);

/// The store of `t` behind a proxy.
struct Behind {
    store: Store,
    proxy: Proxy,
}

fn address_of(config: &StoreConfig) -> SocketAddr {
    let url: url::Url = config.url.expose().parse().unwrap();
    let host = url.host_str().unwrap().replace("localhost", "127.0.0.1");
    SocketAddr::new(host.parse().unwrap(), url.port().unwrap_or(5432))
}

async fn connect_through(t: &TestStore, port: u16) -> Store {
    let mut url: url::Url = t.config.url.expose().parse().unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    let config = StoreConfig { url: Secret::new(url.to_string()), ..t.config.clone() };
    Store::connect(&config, t.clock.clone(), &TaskTracker::new()).await.unwrap()
}

async fn behind_a_proxy(t: &TestStore) -> Behind {
    t.account("acc_1").await;
    let proxy = Proxy::start(address_of(&t.config), 0).await;
    let store = connect_through(t, proxy.address.port()).await;
    let behind = Behind { store, proxy };
    // Every connection of the pool is open.
    assert!(all_work(t, &behind.store).await);
    behind
}

/// A write and more reads at once than the pool has connections.
async fn all_work(t: &TestStore, store: &Store) -> bool {
    let reads = join_all((0..20).map(|_| store.has_account()));
    let (reads, write) = tokio::join!(reads, store.accept_job(t.job("acc_1")));
    reads.iter().all(Result::is_ok) && write.is_ok()
}

/// How long it takes until everything works.
async fn until_all_work(t: &TestStore, store: &Store) -> Duration {
    let begun = Instant::now();
    while !all_work(t, store).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never works again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    begun.elapsed()
}

async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(IN_TIME, work).await.unwrap_or_else(|_| panic!("the caller was not told in time"))
}

async fn a_silent_cut_is_told_in_time_and_heals(t: &TestStore) {
    let b = behind_a_proxy(t).await;
    t.accept("acc_1").await;
    b.proxy.set(Mode::Silent);
    let claim = ClaimRequest { claim_id: "c".into(), worker: "w".into(), queue: "video", limit: 9 };
    let (reads, accepts, claim, pinged) = tokio::join!(
        join_all((0..40).map(|_| in_time(b.store.has_account()))),
        // More than one batch: the later ones wait for the first one, too.
        join_all((0..200).map(|_| in_time(b.store.accept_job(t.job("acc_1"))))),
        in_time(b.store.claim(claim)),
        in_time(b.store.ping()),
    );
    assert!(reads.iter().all(Result::is_err) && accepts.iter().all(Result::is_err));
    assert!(claim.is_err() && pinged.is_err());
    // By now the store knows, and says so at once.
    let begun = Instant::now();
    assert!(b.store.accept_job(t.job("acc_1")).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    b.proxy.set(Mode::Open);
    let healed = until_all_work(t, &b.store).await;
    assert!(healed < Duration::from_secs(8), "{healed:?}");
    b.store.close().await;
}

async fn a_flow_that_died_is_replaced_though_the_network_is_fine(t: &TestStore) {
    let b = behind_a_proxy(t).await;
    // Old connections are dead from here on, and nobody was told; new ones are fine.
    b.proxy.set(Mode::Silent);
    b.proxy.set(Mode::Open);
    // They died while nobody used them: what was used a moment ago is trusted, and costs its user a timeout.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let healed = until_all_work(t, &b.store).await;
    assert!(healed < Duration::from_secs(8), "{healed:?}");
    b.store.close().await;
}

async fn a_restart_is_waited_for_and_a_longer_one_is_told_at_once(t: &TestStore) {
    let b = behind_a_proxy(t).await;
    b.proxy.set(Mode::Closed);
    let write = async {
        let begun = Instant::now();
        (in_time(b.store.accept_job(t.job("acc_1"))).await, begun.elapsed())
    };
    let (write, ()) = tokio::join!(write, async {
        // Until the store has noticed.
        while b.store.ping().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(write.0.is_err(), "{write:?}");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        in_time(b.store.ping()).await.unwrap_err();
    }
    let begun = Instant::now();
    in_time(b.store.ping()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    b.proxy.set(Mode::Open);
    let healed = until_all_work(t, &b.store).await;
    assert!(healed < Duration::from_secs(5), "{healed:?}");
    b.store.close().await;
}

async fn the_server_may_be_away_at_start(t: &TestStore) {
    // A port that was free a moment ago.
    let port = Proxy::start(address_of(&t.config), 0).await.address.port();
    let store = connect_through(t, port).await;
    let error = in_time(store.migrate()).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { commit_unknown: false, .. }), "{error}");
    assert!(in_time(store.accept_job(t.job("acc_1"))).await.is_err());
    // It comes while the migration waits for it, and works from then on.
    let (migrated, proxy) = tokio::join!(in_time(store.migrate()), Proxy::start(address_of(&t.config), port));
    migrated.unwrap();
    in_time(store.has_account()).await.unwrap();
    // The same without anybody who waits.
    proxy.set(Mode::Closed);
    while store.ping().await.is_ok() {}
    proxy.set(Mode::Open);
    let healed = until_all_work(t, &store).await;
    assert!(healed < Duration::from_secs(5), "{healed:?}");
    store.close().await;
    let config = StoreConfig { url: Secret::new("postgres://[nonsense"), max_connections: 1 };
    let refused = Store::connect(&config, t.clock.clone(), &TaskTracker::new()).await;
    assert!(matches!(refused, Err(StoreError::Config(_))));
}

/// Returns when somebody waits for a lock in the database of `t`.
pub async fn somebody_waits(t: &TestStore) {
    let mut admin = PgConnection::connect(t.config.url.expose()).await.unwrap();
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        if waiting > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets the held commit through once its repetition stands in the way.
async fn release_when_repeated(t: &TestStore, proxy: &Proxy) {
    proxy.commit_is_held().await;
    proxy.set(Mode::Open);
    somebody_waits(t).await;
    proxy.release_commits();
}

async fn an_accept_that_comes_through_late_is_one_job(t: &TestStore) {
    for new in [t.job("acc_1"), t.keyed_job("acc_1", "k", "body")] {
        let b = behind_a_proxy(t).await;
        t.claim(64).await;
        b.proxy.set(Mode::HoldCommit);
        let (accepted, ()) = tokio::join!(in_time(b.store.accept_job(new.clone())), release_when_repeated(t, &b.proxy));
        assert!(matches!(&accepted, Ok(Accepted::New(job)) if job.id == new.job.id), "{accepted:?}");
        assert_eq!(t.claim(64).await.len(), 1, "one task");
        b.store.close().await;
    }
}

async fn an_end_that_comes_through_late_is_won(t: &TestStore) {
    let b = behind_a_proxy(t).await;
    let claimed = t.claim(1).await.remove(0);
    let end = t.end(JobEndTarget::Lease(claimed.lease.clone()), job_of(&claimed), &completed());
    b.proxy.set(Mode::HoldCommit);
    let (won, ()) = tokio::join!(in_time(b.store.end_job(end)), release_when_repeated(t, &b.proxy));
    assert!(won.unwrap().is_some(), "the first commit was this worker's own");
    assert_eq!(t.claim_from("webhook", "w", 10).await.len(), 1, "one event");
    b.store.close().await;
}

async fn a_claim_that_comes_through_late_is_released(t: &TestStore) {
    let b = behind_a_proxy(t).await;
    b.proxy.set(Mode::HoldCommit);
    let claim = ClaimRequest { claim_id: "claim_1".into(), worker: "w".into(), queue: "video", limit: 9 };
    let (claimed, ()) = tokio::join!(in_time(b.store.claim(claim)), async {
        b.proxy.commit_is_held().await;
        b.proxy.set(Mode::Open);
    });
    let error = claimed.unwrap_err();
    assert!(matches!(error, StoreError::Database { commit_unknown: true, .. }), "{error}");
    assert_eq!(b.store.release_claim("w", "claim_1").await.unwrap(), 0, "not there yet");
    b.proxy.release_commits();
    let begun = Instant::now();
    while b.store.release_claim("w", "claim_1").await.unwrap() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the claim never came through");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(t.claim(1).await.len(), 1, "the task is everybody's again");
    b.store.close().await;
}

/// What is spent and held by the one account of these tests.
async fn standing(t: &TestStore) -> (i64, i64) {
    let balance = t.store.balance("acc_money", Month::of(t.now())).await.unwrap();
    (balance.spent.0, balance.held.0)
}

async fn a_reservation_that_comes_through_late_is_one(t: &TestStore) {
    let b = behind_a_proxy(t).await;
    let call = call(t, &payer("acc_money"), 10);
    b.proxy.set(Mode::HoldCommit);
    let reserve = in_time(b.store.reserve_call(call.clone()));
    let (reserved, ()) = tokio::join!(reserve, release_when_repeated(t, &b.proxy));
    assert!(reserved.unwrap().is_ok());
    assert_eq!(standing(t).await, (0, 10));
    b.store.close().await;
}

async fn a_charge_that_comes_through_late_is_one(t: &TestStore) {
    for (number, reserved) in [(1, true), (2, false)] {
        let b = behind_a_proxy(t).await;
        let call = call(t, &payer("acc_money"), 10);
        if reserved {
            drop(t.store.reserve_call(call.clone()).await.unwrap().unwrap());
        }
        b.proxy.set(Mode::HoldCommit);
        let end = in_time(b.store.end_call(ending(&call, MoneyEnd::Charge(Nano(7)), reserved)));
        let (ended, ()) = tokio::join!(end, release_when_repeated(t, &b.proxy));
        ended.unwrap();
        assert_eq!(standing(t).await, (7 * number, 0));
        assert_eq!(t.store.doctor(t.now().minus(Duration::from_mins(5))).await.unwrap(), []);
        b.store.close().await;
    }
}
