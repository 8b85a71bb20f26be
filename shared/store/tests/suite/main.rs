//! The store's contract, run on SQLite and on PostgreSQL (`AIG_TEST_POSTGRES_URL`, default the local server).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod accept;
mod accounts;
mod clock;
mod ends;
mod faults;
mod lanes;
mod leaders;
mod leases;
mod model;
mod money;
mod prices;
mod processes;
mod proxy;
mod retain;
mod support;
mod tenants;
mod usage;
mod webhooks;
