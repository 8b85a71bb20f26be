//! What every process of the gateway shares: configuration, the data folder, the parts put together, start and stop.
//!
//! [`App`] is the only composition root. No role reads the environment, opens a pool or installs a signal handler.

pub mod app;
pub mod config;
pub mod datadir;
pub mod first_account;
pub mod health;
pub mod lifecycle;
pub mod prices;
pub mod readiness;
pub mod telemetry;

pub use app::App;
pub use config::Config;
pub use lifecycle::Shutdown;
pub use telemetry::Metrics;
