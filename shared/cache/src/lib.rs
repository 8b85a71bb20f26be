//! What processes share without depending on it: rate limits and signals.
//!
//! Two seams: [`RateLimiter`] and [`Bus`]. Nothing here is needed for correctness: money and jobs live in the database.
//! The contract that every form keeps is tested in `shared/cache/tests/suite`.

mod bus;
mod memory;
mod rate_limit;

pub use bus::{Bus, Signal};
pub use memory::{MemoryBus, MemoryLimiter};
pub use rate_limit::{Decision, RateLimit, RateLimiter};
