//! The database's time. Its arithmetic is tested beside it.

use std::time::Duration;

use aig_domain::clock::SystemClock;
use aig_domain::{Clock as _, Secret};
use aig_store::{StoreConfig, database_clock};
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{TestStore, both};

both!(the_clock_tells_the_databases_time, without_its_database_it_tells_the_machines);

async fn the_clock_tells_the_databases_time(t: &TestStore) {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let clock = database_clock(&t.config, &tracker, stop.clone().cancelled_owned()).await.unwrap();
    let now = clock.now();
    if t.config.is_embedded() {
        assert!(now.until(SystemClock.now()) < Duration::from_secs(5));
    } else {
        let mut server = PgConnection::connect(t.config.url.expose()).await.unwrap();
        let query = sqlx::query_scalar("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)");
        let later: i64 = query.fetch_one(&mut server).await.unwrap();
        assert!((0..5000).contains(&(later - now.0)), "{now:?}, {later}");
    }
    assert!(clock.now() >= now);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

async fn without_its_database_it_tells_the_machines(t: &TestStore) {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    // Nobody listens there.
    let url = Secret::new("postgres://postgres@127.0.0.1:9/none");
    let config = StoreConfig { url, ..t.config.clone() };
    let clock = database_clock(&config, &tracker, stop.clone().cancelled_owned()).await.unwrap();
    assert!(clock.now().until(SystemClock.now()) < Duration::from_secs(5));
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
