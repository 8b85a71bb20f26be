//! The two kinds of database behind one set of statements.
//!
//! [`Db`] holds the pools, [`Tx`] a transaction, and [`on!`] runs the same expression on whichever it is.

use std::str::FromStr as _;
use std::time::Duration;

use aig_domain::Secret;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, PgConnection, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::bounded::PgTx;
use crate::postgres::{Pg, within};
use crate::{StoreError, dialect};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// How long a caller waits for the embedded database.
const SQLITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all migrations together may take: an index over a large table is not made in seconds.
const MIGRATION: Duration = Duration::from_mins(30);
/// How long it may take to change a setting of a connection.
const SETTING: Duration = Duration::from_secs(5);
/// Readers of the embedded database; the writer is one connection.
const SQLITE_READERS: u32 = 4;

/// Where the database is.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:/path/to/file.db` or `postgres://…`; may hold a password.
    ///
    /// Everything that sqlx understands may be said in it, and nothing is changed: `sslmode` is `prefer` unless it says
    /// otherwise. Over TLS a statement of more than 16 KiB, text and values together, leaves in two pieces, and since sqlx
    /// does not set `TCP_NODELAY`, the second one waits for the acknowledgement of the first: 40 ms on Linux. Where
    /// the network is trusted, such as on loopback, `sslmode=disable` is the faster choice.
    pub url: Secret,
    /// The most connections to PostgreSQL.
    pub max_connections: u32,
}

impl StoreConfig {
    /// Whether the database is the embedded one.
    pub fn is_embedded(&self) -> bool {
        self.url.expose().starts_with("sqlite:")
    }
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
    Postgres { pg: Pg, config: StoreConfig },
}

/// A transaction. Dropping it rolls it back.
pub(crate) type Tx = Either<Transaction<'static, Sqlite>, PgTx>;

impl Db {
    /// Opens the embedded database; makes ready to connect to PostgreSQL, which may be away for now.
    pub(crate) async fn connect(config: &StoreConfig, tracker: &TaskTracker) -> Result<Self, StoreError> {
        let url = config.url.expose();
        if config.is_embedded() {
            Self::connect_sqlite(url).await
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Ok(Self::Postgres { pg: Pg::open(config, tracker)?, config: config.clone() })
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
            .busy_timeout(SQLITE_TIMEOUT)
            .foreign_keys(true)
            .statement_cache_capacity(256);
        // The one writer is opened first: it makes the file that the readers need.
        let pool = |max| SqlitePoolOptions::new().max_connections(max).acquire_timeout(SQLITE_TIMEOUT);
        let write = pool(1).connect_with(options.clone()).await?;
        let read = pool(SQLITE_READERS).connect_with(options.read_only(true)).await?;
        Ok(Self::Sqlite { read, write })
    }

    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { write, .. } => MIGRATOR.run(write).await?,
            Self::Postgres { pg, config } => {
                let mut connection = pg.alone_and_patient(config).await?;
                let run = async { Ok(MIGRATOR.run(&mut connection).await) };
                within(Instant::now() + MIGRATION, run).await??;
            }
        }
        Ok(())
    }

    /// Whether every migration that this program knows has been applied. Later ones do not disturb it.
    pub(crate) async fn check_schema(&self) -> Result<(), StoreError> {
        let known = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
        let applied: Result<Option<i64>, sqlx::Error> = on!(self.read(), |pool| {
            sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations WHERE success").fetch_one(pool).await
        });
        match applied {
            Ok(applied) if applied.unwrap_or(0) >= known => Ok(()),
            Ok(applied) => Err(StoreError::Schema(format!("it is at {}, and {known} is needed", applied.unwrap_or(0)))),
            Err(error) if dialect::is_missing_table(&error) => Err(StoreError::Schema("it is empty".into())),
            Err(error) => Err(error.into()),
        }
    }

    /// A connection to PostgreSQL for statements that read much: without the limits of the others, and with a planner that may
    /// read whole tables. `None` for the embedded database, which needs none.
    pub(crate) async fn for_reports(&self) -> Result<Option<PgConnection>, StoreError> {
        let Self::Postgres { pg, config } = self else { return Ok(None) };
        let mut connection = pg.alone_and_patient(config).await?;
        for setting in ["enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"] {
            let sql = AssertSqlSafe(format!("SET {setting} = on"));
            within(Instant::now() + SETTING, sqlx::query(sql).execute(&mut connection)).await?;
        }
        let patient = sqlx::query("SET statement_timeout = 0").execute(&mut connection);
        within(Instant::now() + SETTING, patient).await?;
        Ok(Some(connection))
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite { .. })
    }

    /// A pool for single reading statements.
    pub(crate) fn read(&self) -> Either<&SqlitePool, &Pg> {
        match self {
            Self::Sqlite { read, .. } => Either::Sqlite(read),
            Self::Postgres { pg, .. } => Either::Postgres(pg),
        }
    }

    /// A pool for single writing statements.
    pub(crate) fn write(&self) -> Either<&SqlitePool, &Pg> {
        match self {
            Self::Sqlite { write, .. } => Either::Sqlite(write),
            Self::Postgres { pg, .. } => Either::Postgres(pg),
        }
    }

    /// Begins a writing transaction. SQLite takes its write lock at once, so that no upgrade can fail later.
    pub(crate) async fn begin(&self) -> Result<Tx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { write, .. } => Either::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres { pg, .. } => Either::Postgres(pg.begin().await?),
        })
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres { pg, .. } => pg.close().await,
        }
    }
}

impl Tx {
    /// The connection, for one statement.
    pub(crate) fn conn(&mut self) -> Either<&mut SqliteConnection, &mut PgTx> {
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

    /// Commits; an error says whether it may have happened all the same.
    pub(crate) async fn commit_or_unknown(self) -> Result<(), StoreError> {
        let unknown = |source| StoreError::Database { commit_unknown: !dialect::is_clear_no(&source), source };
        self.commit().await.map_err(unknown)
    }

    /// Rolls back. Dropping does it too, at the cost of a connection to PostgreSQL.
    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await,
            Self::Postgres(tx) => tx.rollback().await,
        }
    }
}
