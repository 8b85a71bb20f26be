//! One measurement, one file, one function `run` that gives back a table.

pub mod chat;
pub mod distributed;
pub mod jobs;
pub mod money;
mod proxies;
pub mod stream;
