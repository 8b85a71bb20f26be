//! What waits for PostgreSQL, with an end to its waiting: a connection out of the pool, a transaction, and how statements
//! run on them.
//!
//! A statement whose time is over takes its connection with it: nobody can tell where that stands. The connection's place
//! in the pool is free at once. A transaction that is dropped before its end goes the same way, and the server rolls it
//! back; who has the time calls [`PgTx::rollback`] and keeps the connection.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, Postgres, SqlStr};
use tokio::time::{Instant, timeout, timeout_at};

use crate::postgres::{GIVE_BACK, Pg, no_answer};

/// What a statement gives: rows, and how many it changed.
pub(crate) type Answers = Vec<Either<PgQueryResult, PgRow>>;

/// A connection out of the pool. Dropping it gives it back, if it shows in time that it is alive.
pub(crate) struct Checkout {
    connection: Option<PoolConnection<Postgres>>,
    pg: Pg,
    /// Which pool it is from.
    number: u64,
}

impl Checkout {
    pub(crate) fn new(connection: PoolConnection<Postgres>, pg: Pg, number: u64) -> Self {
        Self { connection: Some(connection), pg, number }
    }

    /// Closes the connection on the spot, without a word to the server.
    fn discard(mut self) {
        drop(self.connection.take().map(PoolConnection::detach));
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (pg, number) = (self.pg.clone(), self.number);
        // As sqlx does it, but not for ever: when the time is over, the connection and its place in the pool are freed.
        let given_back = connection.return_to_pool();
        self.pg.spawn(async move {
            if timeout(GIVE_BACK, given_back).await.is_err() {
                pg.suspect(number);
            }
        });
    }
}

/// Runs one statement, until `deadline`.
pub(crate) async fn run<'q, E>(
    checkout: &mut Option<Checkout>,
    deadline: Instant,
    statement: E,
) -> Result<Answers, sqlx::Error>
where
    E: Execute<'q, Postgres> + 'q,
{
    let Some(connection) = checkout.as_mut().and_then(|checkout| checkout.connection.as_mut()) else {
        return Err(no_answer());
    };
    let answers = timeout_at(deadline, connection.fetch_many(statement).try_collect()).await;
    if let Ok(answers) = answers {
        return answers;
    }
    if let Some(checkout) = checkout.take() {
        checkout.pg.suspect(checkout.number);
        checkout.discard();
    }
    Err(no_answer())
}

/// A transaction with a deadline for all of it.
pub(crate) struct PgTx {
    /// Gone once it did not answer.
    checkout: Option<Checkout>,
    deadline: Instant,
}

impl PgTx {
    /// A transaction that has yet to begin.
    pub(crate) fn new(checkout: Checkout, deadline: Instant) -> Self {
        Self { checkout: Some(checkout), deadline }
    }

    /// Runs one statement.
    pub(crate) async fn run<'q, E>(&mut self, statement: E) -> Result<Answers, sqlx::Error>
    where
        E: Execute<'q, Postgres> + 'q,
    {
        run(&mut self.checkout, self.deadline, statement).await
    }

    /// Commits. An error may mean that the commit happened all the same.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.end("COMMIT").await
    }

    /// Undoes everything. When this fails, the server does it by itself a little later.
    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.run(statement).await?;
        // There is nothing left to undo: the connection may serve others.
        drop(self.checkout.take());
        Ok(())
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        if let Some(checkout) = self.checkout.take() {
            checkout.discard();
        }
    }
}

type Steps<'e> = BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>;

fn steps<'e>(answers: impl Future<Output = Result<Answers, sqlx::Error>> + Send + 'e) -> Steps<'e> {
    Box::pin(stream::once(answers).map_ok(|answers| stream::iter(answers).map(Ok)).try_flatten())
}

fn first_row(answers: Answers) -> Option<PgRow> {
    answers.into_iter().find_map(Either::right)
}

/// The store's statements are prepared by being run.
fn unsupported<'e, T: Send + 'e>() -> BoxFuture<'e, Result<T, sqlx::Error>> {
    Box::pin(std::future::ready(Err(sqlx::Error::Protocol("statements are only run here".into()))))
}

/// Both ways to run a statement look the same to sqlx.
macro_rules! executor {
    ($c:lifetime, $handle:ty) => {
        impl<$c> Executor<$c> for $handle {
            type Database = Postgres;

            fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Steps<'e>
            where
                $c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                steps(self.run(query))
            }

            fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
            where
                $c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                Box::pin(async move { self.run(query).await.map(first_row) })
            }

            fn prepare_with<'e>(self, _: SqlStr, _: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
            where
                $c: 'e,
            {
                unsupported()
            }

            fn describe<'e>(self, _: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
            where
                $c: 'e,
            {
                unsupported()
            }
        }
    };
}
executor!('c, &'c Pg);
executor!('c, &'c mut PgTx);

impl std::fmt::Debug for PgTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PgTx")
    }
}
