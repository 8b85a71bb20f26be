//! One measurement, one file, one function `run` that gives back a table.

pub mod chat;
pub mod jobs;
mod proxies;
pub mod stream;
