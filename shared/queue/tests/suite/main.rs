//! The brokers' contract, run on the broker in this process and on RabbitMQ, and what only RabbitMQ can suffer.
//!
//! `AIG_TEST_AMQP_URL` names another RabbitMQ than the local one. Outages are made by a proxy in between
//! (`aig_testkit::FaultProxy`) and in vhosts that a test makes for itself, since other tests use the same server.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

mod consume;
mod contract;
mod outages;
mod publish;
mod support;
mod topology;
