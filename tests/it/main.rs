//! Black-box scenarios: the real binary as a process, fakes of providers and receivers around it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod chaos;
mod chat;
mod files;
mod gateway;
mod hygiene;
mod jobs;
mod lifecycle;
mod upstream;
mod webhooks;
