//! Pages of what an account has, newest first.

use crate::StoreError;

/// One page, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Whether there are older ones.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// The page of `rows`, of which one more than `limit` was asked for.
    pub(crate) fn of<R>(mut rows: Vec<R>, limit: u32) -> Result<Self, StoreError>
    where
        T: TryFrom<R, Error = StoreError>,
    {
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Ok(Self { items: rows.into_iter().map(T::try_from).collect::<Result<_, _>>()?, has_more })
    }
}

/// Reads a page: `$1` is the owner, what follows the place to begin at. `$after_sql` finds when the thing `after` was made;
/// the function ends with `None` when the owner has no such thing.
macro_rules! page {
    ($store:expr, $row:ty, $sql:expr, $after_sql:expr, $owner:expr, $after:expr, $limit:expr) => {{
        let created_at: Option<i64> = match $after {
            None => Some(i64::MAX),
            Some(id) => on!($store.db.read(), |pool| {
                sqlx::query_scalar($after_sql).bind(id).bind($owner).fetch_optional(pool).await
            })?,
        };
        let Some(created_at) = created_at else { return Ok(None) };
        let rows: Vec<$row> = on!($store.db.read(), |pool| {
            let query = sqlx::query_as($sql).bind($owner).bind(created_at).bind($after.unwrap_or(""));
            query.bind(i64::from($limit) + 1).fetch_all(pool).await
        })?;
        Page::of(rows, $limit).map(Some)
    }};
}
pub(crate) use page;
