//! One take as one script, so that it is atomic and costs one round trip, with the clock of Redis.
//!
//! `take.lua` does what `rate_limit.rs` does: a test gives both the same calls and compares every answer. It is called by
//! its hash; a Redis that forgot it gets it again with the same call.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use crate::rate_limit::{STEP_BACK, Shape, TOKEN};

const SOURCE: &str = include_str!("take.lua");

/// The script that takes a token.
pub(super) struct Script {
    source: String,
    hash: String,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::of(SOURCE.to_owned())
    }

    fn of(source: String) -> Self {
        Self { hash: ::redis::Script::new(&source).get_hash().to_owned(), source }
    }

    /// Takes a token out of the bucket `key`: whether it was there, and the level afterwards.
    pub(super) async fn take(
        &self,
        connection: &mut MultiplexedConnection,
        key: &str,
        shape: Shape,
    ) -> Result<(bool, u64), RedisError> {
        match Self::command("EVALSHA", &self.hash, key, shape).query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Self::command("EVAL", &self.source, key, shape).query_async(connection).await
            }
            answer => answer,
        }
    }

    fn command(name: &str, script: &str, key: &str, shape: Shape) -> Cmd {
        let mut command = ::redis::cmd(name);
        command.arg(script).arg(1).arg(key).arg(shape.rate).arg(shape.capacity).arg(TOKEN).arg(STEP_BACK);
        command
    }
}

#[cfg(test)]
mod tests;
