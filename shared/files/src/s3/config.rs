//! The URL of a bucket: `s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME`.
//!
//! `endpoint` is left out for Amazon itself, which wants `region`; elsewhere the region is `us-east-1` unless given. The
//! connection is encrypted unless the endpoint is written with `http://`. Keys are no part of the URL, which may be logged.

use std::time::Duration;

use aig_domain::Secret;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use url::Url;

use crate::{FileKey, FilesError};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long S3 may be silent within one request; sending a part counts.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// After this no request is repeated.
const REPEAT: Duration = Duration::from_secs(10);

/// Where the credentials come from when none are set: what containers, pods and functions on Amazon get in their
/// environment. When that is empty too, the machine's own role is asked for.
const FROM_ENVIRONMENT: [Key; 9] = [
    Key::AccessKeyId,
    Key::SecretAccessKey,
    Key::Token,
    Key::ContainerCredentialsRelativeUri,
    Key::ContainerCredentialsFullUri,
    Key::ContainerAuthorizationTokenFile,
    Key::WebIdentityTokenFile,
    Key::RoleArn,
    Key::RoleSessionName,
];

/// A bucket and how to get in.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// `s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME`.
    pub url: String,
    /// The name of the key pair; without it the usual `AWS_…` environment or the machine's role gives the credentials.
    pub access_key_id: Option<Secret>,
    /// The secret half of the key pair.
    pub secret_access_key: Option<Secret>,
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: String,
    /// Empty, or like a file key.
    pub(super) prefix: String,
    endpoint: Option<Url>,
    region: String,
}

impl Place {
    pub(super) fn parse(text: &str) -> Result<Self, FilesError> {
        let form = "the URL of an S3 bucket is s3://BUCKET/PREFIX?endpoint=URL&region=NAME";
        let url = Url::parse(text).map_err(|_| wrong(form))?;
        if url.scheme() != "s3" || url.fragment().is_some() || url.port().is_some() {
            return Err(wrong(form));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("keys are no part of the URL of an S3 bucket"));
        }
        let bucket = url.host_str().filter(|name| is_bucket(name)).ok_or_else(|| {
            wrong("the name of an S3 bucket has 3 to 63 small letters, digits, dots and hyphens, such as s3://my-files")
        })?;
        let prefix = url.path().trim_matches('/');
        if !prefix.is_empty() && FileKey::parse(prefix).is_err() {
            return Err(wrong("the prefix in an S3 URL is made of letters, digits, `-`, `_`, `.` and `/`"));
        }
        let (mut endpoint, mut region) = (None, None);
        for (name, value) in url.query_pairs() {
            let before = match name.as_ref() {
                "endpoint" => endpoint.replace(parse_endpoint(&value)?).is_some(),
                "region" if is_region(&value) => region.replace(value.into_owned()).is_some(),
                "region" => return Err(wrong("`region` in an S3 URL is a name such as eu-central-1")),
                other => {
                    return Err(wrong(&format!(
                        "`{other}` is not known in an S3 URL; known are `endpoint` and `region`"
                    )));
                }
            };
            if before {
                return Err(wrong(&format!("`{name}` is in the S3 URL twice")));
            }
        }
        let region = match (region, &endpoint) {
            (Some(region), _) => region,
            (None, Some(_)) => "us-east-1".to_owned(),
            (None, None) => return Err(wrong("an S3 URL needs `region` (Amazon) or `endpoint` (any other S3)")),
        };
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), endpoint, region })
    }
}

/// A client for `place`, not connected yet.
pub(super) fn builder(place: &Place, config: &S3Config) -> Result<AmazonS3Builder, FilesError> {
    let plain = place.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
    let client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        // Reading a large file takes as long as its reader does.
        .with_timeout_disabled();
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client)
        .with_retry(RetryConfig { backoff, max_retries: 3, retry_timeout: REPEAT })
        // Not every S3 can delete several files in one request.
        .with_disable_bulk_delete(true)
        .with_bucket_name(&place.bucket)
        .with_region(&place.region);
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(endpoint.as_str());
    }
    match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => Ok(builder.with_access_key_id(id.expose()).with_secret_access_key(secret.expose())),
        (None, None) => Ok(FROM_ENVIRONMENT.into_iter().fold(builder, |builder, key| {
            match std::env::var(key.as_ref().to_ascii_uppercase()) {
                Ok(value) => builder.with_config(key, value),
                Err(_) => builder,
            }
        })),
        _ => Err(wrong("S3 needs both halves of a key pair: the access key id and the secret access key")),
    }
}

fn parse_endpoint(text: &str) -> Result<Url, FilesError> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    url.ok_or_else(|| {
        wrong("`endpoint` in an S3 URL is an http or https URL without keys, such as https://s3.example.com")
    })
}

fn is_bucket(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| fits(byte) || matches!(byte, b'.' | b'-'))
        && name.bytes().next().is_some_and(fits)
        && name.bytes().last().is_some_and(fits)
}

fn is_region(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn wrong(why: &str) -> FilesError {
    FilesError::Config(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_bucket_prefix_endpoint_and_region() {
        let place = Place::parse("s3://my-files/a/b/?endpoint=http://127.0.0.1:9000&region=eu-central-1").unwrap();
        assert_eq!((place.bucket.as_str(), place.prefix.as_str()), ("my-files", "a/b"));
        assert_eq!(place.endpoint.unwrap().as_str(), "http://127.0.0.1:9000/");
        assert_eq!(place.region, "eu-central-1");
        let place = Place::parse("s3://my-files?endpoint=https://s3.example.com/storage").unwrap();
        assert_eq!((place.prefix.as_str(), place.region.as_str()), ("", "us-east-1"));
        assert!(Place::parse("s3://my.files?region=eu-west-1").unwrap().endpoint.is_none());
    }

    #[test]
    fn a_wrong_url_is_told_without_repeating_what_may_be_secret() {
        for (url, why) in [
            ("my-files", "s3://BUCKET"),
            ("https://my-files?region=x", "s3://BUCKET"),
            ("s3://my-files:9000?region=x", "s3://BUCKET"),
            ("s3://?region=x", "the name of an S3 bucket"),
            ("s3://My_Files?region=x", "the name of an S3 bucket"),
            ("s3://AKIAHUSH:hush@my-files?region=x", "keys are no part"),
            ("s3://my-files/../x y?region=x", "the prefix"),
            ("s3://my-files", "needs `region`"),
            ("s3://my-files?region=", "`region`"),
            ("s3://my-files?region=x&region=y", "twice"),
            ("s3://my-files?endpoint=127.0.0.1:9000", "`endpoint`"),
            ("s3://my-files?endpoint=ftp://x", "`endpoint`"),
            ("s3://my-files?endpoint=http://AKIAHUSH:hush@x", "`endpoint`"),
            ("s3://my-files?region=x&secret_access_key=hush", "`secret_access_key` is not known"),
        ] {
            let error = Place::parse(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.to_lowercase().contains("hush"), "{error}");
        }
    }

    #[test]
    fn half_a_key_pair_is_an_error() {
        let place = Place::parse("s3://my-files?region=x").unwrap();
        let config = S3Config { url: String::new(), access_key_id: Some(Secret::new("id")), secret_access_key: None };
        assert!(builder(&place, &config).unwrap_err().to_string().contains("both halves"));
    }
}
