//! What every request passes: the [`door`] around everything, [`auth`] around each route, and what handlers use to read
//! a request ([`body`], [`fields`], [`query`], [`headers`], [`models`]).

pub mod auth;
pub mod body;
pub mod context;
pub mod door;
pub mod fields;
pub mod headers;
pub mod key_cache;
pub mod models;
pub mod query;
pub mod rate_limit;
