//! The environment: the settings that differ from machine to machine. Each goes before the file's.

use std::net::SocketAddr;
use std::path::PathBuf;

use aig_domain::Secret;
use ipnet::IpNet;

use super::ConfigError;

/// Reads variables; a variable that is empty is one that is not set.
pub(super) struct Environment<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// `AIG_SECRET_KEY`, or the content of the file that `AIG_SECRET_KEY_FILE` names.
    pub(super) fn secret_key(&self) -> Result<Option<Secret>, ConfigError> {
        if let Some(key) = self.get("AIG_SECRET_KEY") {
            return Ok(Some(Secret::new(key)));
        }
        let Some(path) = self.get("AIG_SECRET_KEY_FILE") else { return Ok(None) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Secret::new(text.trim()))),
            Err(error) => Err(ConfigError(format!("AIG_SECRET_KEY_FILE: {path} cannot be read: {error}"))),
        }
    }
}

/// `ADDRESS:PORT`.
pub(super) fn listen(text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse()
        .map_err(|_| ConfigError(format!("cannot listen on `{text}`; write ADDRESS:PORT, such as 127.0.0.1:8080")))
}

/// A URL that links are made of.
pub(super) fn link_url(name: &str, text: &str) -> Result<String, ConfigError> {
    let url =
        url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none());
    match url {
        Some(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        None => Err(ConfigError(format!("{name}: `{text}` is not an http or https URL"))),
    }
}

/// `sqlite:…` or `postgres://…`. The message never repeats the URL: it may hold a password.
pub(super) fn database_url(text: &str) -> Result<Secret, ConfigError> {
    if ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        Ok(Secret::new(text))
    } else {
        Err(ConfigError("AIG_DATABASE_URL begins with sqlite: or postgres://".into()))
    }
}

/// A seam that has only its embedded form in this version.
pub(super) fn only_memory(name: &str, text: Option<&str>) -> Result<(), ConfigError> {
    match text {
        None | Some("memory:") => Ok(()),
        Some(_) => Err(ConfigError(format!("{name}: this version supports only `memory:`"))),
    }
}

/// `file:///path`.
pub(super) fn files_dir(text: &str) -> Result<PathBuf, ConfigError> {
    let path = url::Url::parse(text).ok().filter(|url| url.scheme() == "file").and_then(|url| url.to_file_path().ok());
    path.ok_or_else(|| ConfigError("AIG_FILES_URL: this version supports only `file:///path`".into()))
}

/// A comma list of networks; an empty word is none.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, ConfigError> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty() && *word != "none")
        .map(|word| {
            word.parse().map_err(|_| {
                ConfigError(format!("AIG_PRIVATE_TARGETS: `{word}` is not a network; write ADDRESS/BITS or `none`"))
            })
        })
        .collect()
}
