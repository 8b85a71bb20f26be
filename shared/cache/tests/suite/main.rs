//! The contract of the limiter and the bus, run in memory and on Redis (`AIG_TEST_REDIS_URL`, default the local one), and
//! what happens when Redis misbehaves, on servers that the tests start for themselves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod bus;
mod bus_troubles;
mod limiter;
mod limiter_troubles;
mod server;
mod support;
