//! What went wrong at S3, in words that can be logged.
//!
//! S3's answers quote the request: key ids, signatures, session tokens. Only its error code is taken from them.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};

use crate::FilesError;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    /// There is no such object, bucket or upload.
    pub(super) missing: bool,
    /// S3's own word, such as `NoSuchBucket`, when it said one.
    pub(super) code: Option<String>,
    why: String,
}

impl From<Failure> for FilesError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure.why)
    }
}

/// The outcome of `request`, which may take `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Failure> {
    let Ok(outcome) = tokio::time::timeout(limit, request).await else {
        let why = format!("S3 did not finish within {} seconds", limit.as_secs());
        return Err(Failure { missing: false, code: None, why });
    };
    outcome.map_err(|error| Failure::of(&error))
}

impl Failure {
    pub(super) fn of(error: &StoreError) -> Self {
        let text = error.to_string();
        let code = code(&text).map(str::to_owned);
        let why = match (transport(error), &code) {
            // Where a machine is asked for its role; the question names no bucket.
            _ if text.contains("//169.254.") => {
                "there is no key pair, and this machine gives no credentials: set the key pair of the bucket".to_owned()
            }
            (Some(why), _) => why,
            (None, Some(code)) => format!("S3 answered {code}{}", hint(code)),
            (None, None) => unnamed(error, &text),
        };
        Self { missing: matches!(error, StoreError::NotFound { .. }), code, why }
    }
}

/// What happened when there was no whole answer.
fn transport(error: &StoreError) -> Option<String> {
    let http = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>())?;
    let root = root(http);
    Some(match http.kind() {
        HttpErrorKind::Connect => format!("S3 cannot be reached: {root}"),
        HttpErrorKind::Timeout => "S3 did not answer in time".to_owned(),
        _ => format!("the connection to S3 broke: {root}"),
    })
}

/// What happened when S3 gave no code: its answers to HEAD have no body.
fn unnamed(error: &StoreError, text: &str) -> String {
    if text.contains("Received redirect") {
        return "S3 answered with a redirect: check the region".to_owned();
    }
    if matches!(error, StoreError::PermissionDenied { .. }) {
        return format!("S3 answered 403{}", hint("AccessDenied"));
    }
    if let Some(status) = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)) {
        return format!("S3 answered {status}");
    }
    if text.contains("error response: ") {
        return "S3 answered with an error".to_owned();
    }
    format!("S3 failed: {}", root(error))
}

/// The code in an answer like `<Error><Code>NoSuchBucket</Code>…`.
fn code(text: &str) -> Option<&str> {
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    (code.len() <= 60 && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(code)
}

fn hint(code: &str) -> &'static str {
    match code {
        "AccessDenied" => {
            ": the key pair must be allowed to list the bucket (s3:ListBucket) and to get, put and delete its objects, and to \
             abort uploads"
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken" => ": check the key pair",
        "AuthorizationHeaderMalformed" | "PermanentRedirect" => ": check the region",
        "NoSuchBucket" => ": make the bucket, or check its name",
        "RequestTimeTooSkewed" => ": check the clock of this machine",
        _ => "",
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The first cause: the operating system, DNS or TLS, which know nothing of keys.
fn root(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn only_the_code_of_an_answer_is_repeated() {
        let text = "Error performing PUT http://x/y?uploadId=hush - Server returned non-2xx status code: 400 Bad Request: \
                    <Error><Code>InvalidToken</Code><Token-0>hush</Token-0></Error>";
        let failure = Failure::of(&generic(text));
        assert_eq!(failure.why, "S3 answered InvalidToken: check the key pair");
        assert_eq!(failure.code.as_deref(), Some("InvalidToken"));
        for (text, why) in [
            ("Server returned non-2xx status code: 503 Service Unavailable: hush", "S3 answered 503"),
            ("Server returned non-2xx status code: 400 : <Code>hush hush</Code>", "S3 answered 400"),
            ("Server returned error response: hush", "S3 answered with an error"),
            ("Received redirect without LOCATION", "S3 answered with a redirect: check the region"),
            (
                "Error performing PUT http://169.254.169.254/latest/api/token - HTTP error: timed out",
                "there is no key pair, and this machine gives no credentials: set the key pair of the bucket",
            ),
        ] {
            assert_eq!(Failure::of(&generic(text)).why, why);
        }
    }

    #[test]
    fn what_broke_below_is_named() {
        let refused = std::io::Error::other("Connection refused");
        let http = HttpError::new(HttpErrorKind::Connect, refused);
        let failure = Failure::of(&StoreError::Generic { store: "S3", source: Box::new(http) });
        assert_eq!(failure.why, "S3 cannot be reached: Connection refused");
        assert!(!failure.missing);
        let missing = StoreError::NotFound { path: "a".into(), source: "<Code>NoSuchBucket</Code>".into() };
        assert!(Failure::of(&missing).missing);
    }
}
