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

/// Whether a failed statement only needs to be run again: a deadlock (40P01) or a serialization failure (40001).
pub(crate) fn is_rerun(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40P01" | "40001"))
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
