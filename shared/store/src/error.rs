//! What can go wrong in the store, and what its callers' callers are told.

use aig_domain::Error;

use crate::dialect;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// A lane is full: nothing was written.
    #[error("the {0} lane is full")]
    Full(&'static str),
    /// The gateway is shutting down: nothing was written.
    #[error("the store is closed")]
    Closed,
    /// The database failed. Nothing was written, unless `commit_unknown`.
    #[error("database: {source}")]
    Database {
        /// What it said.
        source: sqlx::Error,
        /// The commit was sent and its answer lost, also when asked again.
        commit_unknown: bool,
    },
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The schema is older than this program.
    #[error("the database's schema is too old: {0}")]
    Schema(String),
    /// The database was made with another secret key.
    #[error("the secret key `{kid}` is not the one that this database was made with")]
    OtherSecretKey {
        /// Its name.
        kid: String,
    },
    /// A row that this program does not understand; the message names it.
    #[error("{0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether the same write can never succeed: the store is closed, or the database will not take the row.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Closed | Self::Corrupt(_) => true,
            Self::Database { source, commit_unknown: false } => dialect::is_row_fault(source),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        Self::Database { source, commit_unknown: false }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(lane) => {
                tracing::warn!(lane, "a lane of the store is full");
                Error::unavailable("The gateway is busy and did nothing with this request. Try again shortly.", 1)
            }
            StoreError::Closed => {
                Error::unavailable("The gateway is restarting and did nothing with this request. Try again shortly.", 2)
            }
            StoreError::Database { source, commit_unknown: true } => {
                tracing::error!(error = %source, "a commit was lost");
                Error::unavailable(
                    "The database went away while this request was being stored; it may have been stored or not. \
                     Retrying is safe with the same Idempotency-Key.",
                    5,
                )
            }
            StoreError::Database { source, commit_unknown: false } if dialect::is_row_fault(&source) => {
                tracing::error!(error = %source, "the database will never take this row");
                Error::internal()
            }
            StoreError::Corrupt(what) => {
                tracing::error!(what, "a row makes no sense");
                Error::internal()
            }
            other => {
                tracing::error!(error = %other, "the store failed");
                Error::unavailable(
                    "The gateway's database does not answer, so nothing was done and nothing charged. Try again shortly.",
                    5,
                )
            }
        }
    }
}
