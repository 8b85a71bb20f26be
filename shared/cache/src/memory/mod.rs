//! The forms for one process: nothing leaves it, nothing can fail. Tests: `shared/cache/tests/suite`, and in each file what
//! only this form can promise.

mod bus;
mod limiter;

pub use bus::MemoryBus;
pub use limiter::MemoryLimiter;
