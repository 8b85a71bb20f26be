//! A PostgreSQL database of its own, on a server that is there already.

use std::process::{Command, Stdio};

use anyhow::Context as _;

/// The server when nothing names another.
const SERVER: &str = "postgres://postgres@127.0.0.1:5432/postgres";

/// A fresh database; it is gone when this is dropped.
pub struct Database {
    server: String,
    name: String,
    /// Version and durability of the server, for the reader.
    pub about: String,
}

/// Makes one; `None` when no server answers.
pub fn create() -> anyhow::Result<Option<Database>> {
    let server = std::env::var("AIG_TEST_POSTGRES_URL").unwrap_or_else(|_| SERVER.into());
    let about = "SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1) || ', fsync ' || \
                 current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit')";
    let Ok(about) = psql(&server, about) else { return Ok(None) };
    let database = Database { server, name: format!("aig_bench_{}", std::process::id()), about };
    psql(&database.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", database.name))?;
    psql(&database.server, &format!("CREATE DATABASE {}", database.name))?;
    Ok(Some(database))
}

impl Database {
    /// Its URL.
    pub fn url(&self) -> anyhow::Result<String> {
        with_name(&self.server, &self.name).context("AIG_TEST_POSTGRES_URL is not postgres://host/database")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Best effort: a database that stays behind is seen by nobody.
        let _ = psql(&self.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

fn with_name(server: &str, name: &str) -> Option<String> {
    let (scheme, rest) = server.split_once("://")?;
    let (host, path) = rest.split_once('/')?;
    let options = path.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    Some(format!("{scheme}://{host}/{name}{options}"))
}

fn psql(server: &str, sql: &str) -> anyhow::Result<String> {
    let mut command = Command::new("psql");
    command.args(["-qAtX", "-w", "-d", server, "-c", sql]).env("PGCONNECT_TIMEOUT", "5").stdin(Stdio::null());
    let output = command.output().context("psql is missing")?;
    anyhow::ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_is_replaced() {
        assert_eq!(with_name("postgres://u:p@h:1/a?x=/y", "b").as_deref(), Some("postgres://u:p@h:1/b?x=/y"));
        assert_eq!(with_name("postgres://h", "b"), None);
    }
}
