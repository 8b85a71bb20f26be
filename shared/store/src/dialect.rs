//! The few places where the two databases need different words. Everything else is one text.

use crate::db::Tx;

/// What ends a `SELECT` whose rows are about to be changed, so that two workers never wait for each other.
pub(crate) fn skip_locked(tx: &Tx) -> &'static str {
    match tx {
        // BEGIN IMMEDIATE already holds the only write lock.
        Tx::Sqlite(_) => "",
        Tx::Postgres(_) => " FOR UPDATE SKIP LOCKED",
    }
}

/// What ends a `SELECT` whose rows are about to be changed, where each must wait for the one before.
pub(crate) fn for_update(tx: &Tx) -> &'static str {
    match tx {
        Tx::Sqlite(_) => "",
        Tx::Postgres(_) => " FOR UPDATE",
    }
}

/// What keeps a second import of prices out until the transaction ends, while everybody reads on.
pub(crate) fn lock_prices(tx: &Tx) -> Option<&'static str> {
    match tx {
        // BEGIN IMMEDIATE already holds the only write lock.
        Tx::Sqlite(_) => None,
        Tx::Postgres(_) => Some("LOCK TABLE prices IN SHARE ROW EXCLUSIVE MODE"),
    }
}

/// Whether the fault lies with the connection or the server's coming and going, not with the statement: another connection
/// may do better. 57P01 to 57P03: the server is shutting down, has crashed, is starting.
pub(crate) fn is_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P0") || code.starts_with("08") && code.len() == 5)
        }
        _ => false,
    }
}

/// Whether a failed commit certainly did not happen. The server's word is good for that, unless it says that it is going
/// down or broken (57P0x, 58 and XX): then it may have committed before it said so.
pub(crate) fn is_clear_no(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let code = error.code().unwrap_or_default();
    !(code.len() == 5 && ["57P0", "58", "XX", "08", "40003"].iter().any(|class| code.starts_with(class)))
}

/// Whether a failed statement only needs to be run again: a deadlock (40P01) or a serialization failure (40001).
pub(crate) fn is_rerun(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40P01" | "40001"))
}

/// Whether a statement failed because its table is not there: the schema was never made.
pub(crate) fn is_missing_table(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
}

/// Whether the fault may lie in one row of a batch, so that the others deserve a try of their own.
pub(crate) fn is_row_fault(error: &sqlx::Error) -> bool {
    let Some(code) = error.as_database_error().and_then(sqlx::error::DatabaseError::code) else {
        return matches!(error, sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. });
    };
    // PostgreSQL: class 22 is bad data, 23 a broken constraint. SQLite: CONSTRAINT, TOOBIG and MISMATCH with their kin.
    code.starts_with("22") && code.len() == 5
        || code.starts_with("23") && code.len() == 5
        || code.parse::<u32>().is_ok_and(|number| matches!(number & 0xff, 18..=20) && code.len() < 5)
}
