//! The contract of the limiter and the bus.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod bus;
mod limiter;
mod support;
