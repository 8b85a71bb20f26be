//! The environment: the settings that differ from machine to machine. Each goes before the file's.

use std::net::SocketAddr;

use aig_domain::Secret;
use aig_files::S3Config;
use ipnet::IpNet;

use super::{BrokerUrl, CacheUrl, ConfigError, FilesUrl};

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

/// `memory:` or `amqp://…`. No message here repeats a URL: it may hold a password.
pub(super) fn broker_url(text: &str) -> Result<BrokerUrl, ConfigError> {
    match text {
        "memory:" => Ok(BrokerUrl::Memory),
        _ if text.starts_with("amqp://") || text.starts_with("amqps://") => Ok(BrokerUrl::Amqp(Secret::new(text))),
        _ => Err(ConfigError("AIG_BROKER_URL is `memory:` or begins with amqp://".into())),
    }
}

/// `memory:` or `redis://…`.
pub(super) fn cache_url(text: &str) -> Result<CacheUrl, ConfigError> {
    match text {
        "memory:" => Ok(CacheUrl::Memory),
        _ if text.starts_with("redis://") || text.starts_with("rediss://") => Ok(CacheUrl::Redis(Secret::new(text))),
        _ => Err(ConfigError("AIG_CACHE_URL is `memory:` or begins with redis://".into())),
    }
}

/// `file:///path` or `s3://bucket?endpoint=…`; the keys of a bucket come from variables of their own.
pub(super) fn files_url(vars: &Environment<'_>, text: &str) -> Result<FilesUrl, ConfigError> {
    if text.starts_with("s3://") {
        return Ok(FilesUrl::S3(S3Config {
            url: text.to_owned(),
            access_key_id: vars.get("AWS_ACCESS_KEY_ID").map(Secret::new),
            secret_access_key: vars.get("AWS_SECRET_ACCESS_KEY").map(Secret::new),
        }));
    }
    let path = url::Url::parse(text).ok().filter(|url| url.scheme() == "file").and_then(|url| url.to_file_path().ok());
    path.map(FilesUrl::Directory)
        .ok_or_else(|| ConfigError("AIG_FILES_URL is `file:///path` or `s3://bucket?endpoint=…`".into()))
}

/// What the names of queues and cache keys begin with.
pub(super) fn prefix(text: String) -> Result<String, ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if (1..=50).contains(&text.len()) && text.chars().all(plain) {
        Ok(text)
    } else {
        Err(ConfigError("AIG_PREFIX takes 1 to 50 letters, digits, dots, dashes and underscores".into()))
    }
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
