//! The two kinds of database behind one set of statements.
//!
//! [`Db`] holds the pools, [`Tx`] a transaction, and [`on!`] runs the same expression on whichever it is.

use std::str::FromStr as _;
use std::time::Duration;

use aig_domain::Secret;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::StoreError;

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// How long a caller waits for a connection, and a connection for the database.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long PostgreSQL works on one statement.
const STATEMENT_TIMEOUT: &str = "10s";
/// Readers of the embedded database; the writer is one connection.
const SQLITE_READERS: u32 = 4;

/// Where the database is.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:/path/to/file.db` or `postgres://…`; may hold a password.
    pub url: Secret,
    /// The most connections to PostgreSQL.
    pub max_connections: u32,
}

/// One of two things of the same shape: the SQLite and the PostgreSQL form.
pub(crate) enum Either<S, P> {
    Sqlite(S),
    Postgres(P),
}

/// Runs one expression on whichever database a handle belongs to: `on!(tx.conn(), |c| query(SQL).execute(c).await)`.
macro_rules! on {
    ($handle:expr, |$c:ident| $body:expr) => {
        match $handle {
            $crate::db::Either::Sqlite($c) => $body,
            $crate::db::Either::Postgres($c) => $body,
        }
    };
}
pub(crate) use on;

/// The pools.
#[derive(Clone)]
pub(crate) enum Db {
    Sqlite { read: SqlitePool, write: SqlitePool },
    Postgres(PgPool),
}

/// A transaction. Dropping it rolls it back.
pub(crate) type Tx = Either<Transaction<'static, Sqlite>, Transaction<'static, Postgres>>;

impl Db {
    pub(crate) async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let url = config.url.expose();
        if url.starts_with("sqlite:") {
            Self::connect_sqlite(url).await
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url)
                .map_err(|_| StoreError::Config("the PostgreSQL URL cannot be read".into()))?
                .options([("statement_timeout", STATEMENT_TIMEOUT)])
                .application_name("aigateway");
            let pool = PgPoolOptions::new()
                .max_connections(config.max_connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await?;
            Ok(Self::Postgres(pool))
        } else {
            Err(StoreError::Config("a database URL begins with sqlite: or postgres://".into()))
        }
    }

    async fn connect_sqlite(url: &str) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::Config("the SQLite URL cannot be read; write sqlite:/path/to/file.db".into()))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .foreign_keys(true)
            .statement_cache_capacity(256);
        // The one writer is opened first: it makes the file that the readers need.
        let pool = |max| SqlitePoolOptions::new().max_connections(max).acquire_timeout(ACQUIRE_TIMEOUT);
        let write = pool(1).connect_with(options.clone()).await?;
        let read = pool(SQLITE_READERS).connect_with(options.read_only(true)).await?;
        Ok(Self::Sqlite { read, write })
    }

    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { write, .. } => MIGRATOR.run(write).await?,
            Self::Postgres(pool) => MIGRATOR.run(pool).await?,
        }
        Ok(())
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite { .. })
    }

    /// A pool for single reading statements.
    pub(crate) fn read(&self) -> Either<&SqlitePool, &PgPool> {
        match self {
            Self::Sqlite { read, .. } => Either::Sqlite(read),
            Self::Postgres(pool) => Either::Postgres(pool),
        }
    }

    /// A pool for single writing statements.
    pub(crate) fn write(&self) -> Either<&SqlitePool, &PgPool> {
        match self {
            Self::Sqlite { write, .. } => Either::Sqlite(write),
            Self::Postgres(pool) => Either::Postgres(pool),
        }
    }

    /// Begins a writing transaction. SQLite takes its write lock at once, so that no upgrade can fail later.
    pub(crate) async fn begin(&self) -> Result<Tx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { write, .. } => Either::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Either::Postgres(pool.begin().await?),
        })
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    /// The connection, for one statement.
    pub(crate) fn conn(&mut self) -> Either<&mut SqliteConnection, &mut PgConnection> {
        match self {
            Self::Sqlite(tx) => Either::Sqlite(tx),
            Self::Postgres(tx) => Either::Postgres(tx),
        }
    }

    /// Commits. An error may mean that the commit happened all the same.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}
