//! Black-box scenarios: the real binary as a process, fakes of providers and receivers around it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod catalog;
mod chaos;
mod chat;
mod doctor;
mod events;
mod faults;
mod files;
mod gateway;
mod hygiene;
mod jobs;
mod lifecycle;
mod limits;
mod money;
mod outages;
mod own_servers;
mod scale;
mod servers;
mod tenants;
mod upstream;
mod usage;
mod webhooks;
