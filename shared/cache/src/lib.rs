//! What processes share without depending on it: rate limits and signals.
//!
//! Two seams, each with a form for one process and a form on Redis: [`RateLimiter`] and [`Bus`]. Nothing here is needed for
//! correctness: money and jobs live in the database. So a Redis that is slow, frozen, empty, refusing or gone costs
//! accuracy, never an answer: limits are then counted in each process, signals reach only their own process, and both heal
//! by themselves. The contract that both forms keep is tested in `shared/cache/tests/suite`.

mod bus;
mod memory;
mod rate_limit;
mod redis;

pub use self::redis::{CacheError, RedisBus, RedisConfig, RedisLimiter};
pub use bus::{Bus, Signal};
pub use memory::{MemoryBus, MemoryLimiter};
pub use rate_limit::{Decision, RateLimit, RateLimiter};
