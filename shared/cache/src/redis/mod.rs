//! The forms on Redis. Neither needs it: a Redis that is absent, slow, frozen, empty or refusing makes limits local and
//! signals stay at home, says so (`degraded`, a gauge), and heals by itself. Every wait has an end.
//!
//! The limiter and the bus have a connection each, so that a burst of signals does not delay a request. Tests:
//! `shared/cache/tests/suite`, where `*_troubles.rs` break a Redis of their own.

mod bus;
mod health;
mod limiter;
mod link;
mod script;
mod wire;

use ::redis::{Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, ProtocolVersion, RedisError};
use aig_domain::Secret;

pub use bus::RedisBus;
pub use limiter::RedisLimiter;

/// Where Redis is, and what there is ours.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://…` for TLS with a certificate that the public
    /// authorities vouch for. One Redis 6 or newer (or what speaks as it does), not a cluster.
    pub url: Secret,
    /// What the names of all keys and channels begin with, such as `aig:`. Processes with the same prefix work together.
    pub prefix: String,
}

/// Why there is no limiter or bus. That Redis does not answer is no reason.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The URL makes no sense; it is not repeated here, since it may hold a password.
    #[error("the URL of Redis cannot be used: {0}")]
    Url(String),
}

impl RedisConfig {
    /// A client for this URL, which does not connect yet.
    fn client(&self, protocol: ProtocolVersion) -> Result<Client, CacheError> {
        let unusable = |error: RedisError| CacheError::Url(error.to_string());
        let url = self.url.expose();
        if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(CacheError::Url("it must begin with redis:// or rediss://".into()));
        }
        let info = url.into_connection_info().map_err(unusable)?;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(CacheError::Url("`#insecure` is not supported: the certificate is always checked".into()));
            }
            // The one TLS stack of the house; an error means that it is set already.
            ConnectionAddr::TcpTls { .. } => drop(rustls::crypto::ring::default_provider().install_default()),
            _ => {}
        }
        // Without nodelay a small command waits for the acknowledgement of the one before.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let settings = info.redis_settings().clone().set_protocol(protocol);
        Client::open(info.set_tcp_settings(tcp).set_redis_settings(settings)).map_err(unusable)
    }
}

/// Whether Redis answered that it will not, instead of not at all.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// What went wrong, for people: the code and the first sentence of an answer, or that there was none.
fn reason(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => {
            format!("Redis answered {code}: {}", detail.split(". ").next().unwrap_or(detail).trim_end())
        }
        _ if is_answer(error) => format!("Redis answered: {error}"),
        _ => format!("there is no connection to Redis: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, CacheError> {
        RedisConfig { url: Secret::new(url), prefix: String::new() }.client(ProtocolVersion::RESP2)
    }

    #[test]
    fn a_url_is_read_without_connecting_and_nodelay_is_set() {
        let client = client("rediss://me:hunter2@redis.invalid:1234/5").unwrap();
        assert!(client.get_connection_info().tcp_settings().nodelay());
        assert_eq!(client.get_connection_info().redis_settings().db(), 5);
    }

    #[test]
    fn an_unusable_url_is_an_error_that_does_not_show_it() {
        for url in [
            "http://me:hunter2@localhost",
            "redis://me:hunter2@",
            "redis://me:hunter2@localhost/zero",
            "redis://me:hunter2@localhost:port",
            "rediss://me:hunter2@localhost#insecure",
        ] {
            let told = client(url).unwrap_err().to_string();
            assert!(told.starts_with("the URL of Redis cannot be used: "), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
