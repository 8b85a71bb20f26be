//! What is measured, started: each a process in a temporary folder that ends with its handle.

pub mod gateway;
pub mod nginx;
pub mod postgres;
mod process;
pub mod upstream;

use std::path::PathBuf;

pub use process::Process;

/// A binary that was built beside this one.
fn built(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is missing: bench/run builds it", path.display());
    Ok(path)
}
