//! The books of a gateway, read from its database.

use std::sync::Arc;
use std::time::Duration;

use aig_domain::clock::SystemClock;
use aig_domain::{Clock as _, Nano, Secret};
use aig_store::{Store, StoreConfig};
use aig_testkit::eventually;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Sqlite, SqlitePool};
use tokio_util::task::TaskTracker;

/// How long the books may take to be complete.
const LONG: Duration = Duration::from_mins(1);

/// A database of either kind.
enum Sql {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// How a scope stands, all months together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    pub spent: Nano,
    pub held: Nano,
    pub uncertain: Nano,
}

/// One row of `requests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub outcome: String,
    pub status: u16,
    pub estimated: bool,
    pub cost: Nano,
}

/// What keeps everybody from writing.
pub enum Lock {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Lock {
    pub async fn release(self) {
        match self {
            Self::Sqlite(mut connection) => sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.map(drop),
            Self::Postgres(mut connection) => sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.map(drop),
        }
        .unwrap();
    }
}

/// The database of a running gateway.
pub struct Books {
    sql: Sql,
    pub store: Store,
}

impl Books {
    pub async fn open(url: &str) -> Self {
        let sql = if let Some(path) = url.strip_prefix("sqlite:") {
            // A writer never makes a reader wait in this mode, but another writer does.
            let options = SqliteConnectOptions::new().filename(path).busy_timeout(LONG);
            Sql::Sqlite(SqlitePool::connect_with(options).await.unwrap())
        } else {
            Sql::Postgres(PgPool::connect(url).await.unwrap())
        };
        let config = StoreConfig { url: Secret::new(url.to_owned()), max_connections: 2 };
        let store = Store::connect(&config, Arc::new(SystemClock), &TaskTracker::new()).await.unwrap();
        Self { sql, store }
    }

    /// The one text column of every row that a query gives.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let query = AssertSqlSafe(sql.to_owned());
        let rows = match &self.sql {
            Sql::Sqlite(pool) => sqlx::query_scalar(query).fetch_all(pool).await,
            Sql::Postgres(pool) => sqlx::query_scalar(query).fetch_all(pool).await,
        };
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// From now on nothing can be written about reservations, until the guard is given to [`Lock::release`].
    pub async fn lock(&self) -> Lock {
        match &self.sql {
            Sql::Sqlite(pool) => {
                let mut connection = pool.acquire().await.unwrap();
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await.unwrap();
                Lock::Sqlite(connection)
            }
            Sql::Postgres(pool) => {
                let mut connection = pool.acquire().await.unwrap();
                let lock = "BEGIN; LOCK TABLE reservations IN ACCESS EXCLUSIVE MODE";
                sqlx::raw_sql(lock).execute(&mut *connection).await.unwrap();
                Lock::Postgres(connection)
            }
        }
    }

    /// How many rows of `table` there are `when`.
    pub async fn count(&self, table: &str, when: &str) -> usize {
        let rows = self.rows(&format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table} WHERE {when}")).await;
        rows[0].parse().unwrap()
    }

    /// How a scope stands.
    pub async fn sums(&self, scope: &str) -> Sums {
        let sum = |name: &str| format!("CAST(COALESCE(SUM({name}), 0) AS TEXT)");
        let (spent, held, uncertain) = (sum("spent"), sum("held"), sum("uncertain"));
        let rows = self
            .rows(&format!(
                "SELECT {spent} || '|' || {held} || '|' || {uncertain} FROM budget_periods WHERE scope = '{scope}'"
            ))
            .await;
        let mut numbers = rows[0].split('|').map(|number| Nano(number.parse().unwrap()));
        let mut next = || numbers.next().unwrap();
        Sums { spent: next(), held: next(), uncertain: next() }
    }

    /// How a scope stands once nothing of it is under way and every call that was made is on record.
    pub async fn quiet(&self, scope: &str) -> Sums {
        let quiet = eventually("nothing is held", LONG, || async {
            let sums = self.sums(scope).await;
            // What is written without a reservation is there when its sums are.
            (sums.held == Nano::ZERO && (sums.spent > Nano::ZERO || sums.uncertain > Nano::ZERO)).then_some(sums)
        });
        quiet.await.unwrap()
    }

    /// The usage row of a request, once it is there.
    pub async fn request(&self, id: &str) -> Row {
        let sql = format!(
            "SELECT outcome || '|' || CAST(status AS TEXT) || '|' || CASE WHEN estimated THEN '1' ELSE '0' END || '|' || \
             CAST(cost AS TEXT) FROM requests WHERE id = '{id}'"
        );
        let row = eventually("the request is on record", LONG, || async { self.rows(&sql).await.pop() }).await;
        let row = row.unwrap_or_else(|error| panic!("{id}: {error}"));
        let parts: Vec<&str> = row.split('|').collect();
        Row {
            outcome: parts[0].to_owned(),
            status: parts[1].parse().unwrap(),
            estimated: parts[2] == "1",
            cost: Nano(parts[3].parse().unwrap()),
        }
    }

    /// What was charged for a request or a job: each charge on its own.
    pub async fn charges(&self, subject: &str) -> Vec<Nano> {
        let sql = format!("SELECT CAST(amount AS TEXT) FROM ledger WHERE subject = '{subject}' AND kind <> 'refund'");
        self.rows(&sql).await.iter().map(|amount| Nano(amount.parse().unwrap())).collect()
    }

    /// Nothing breaks a rule.
    pub async fn healthy(&self) {
        let late = SystemClock.now().minus(Duration::from_mins(1));
        assert_eq!(self.store.doctor(late).await.unwrap(), []);
    }
}
