//! What a job route reads from its body, and the record it answers with.
//!
//! Input is lenient where the shipped clients need it: kebab-case and camelCase names, a prompt of digits sent as a number,
//! unknown extra fields. Everything that is kept passes the checks of [`JobRequest::parse`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::catalog::Modality;
use crate::job::{Job, JobStatus};
use crate::json::RawObject;
use crate::{Error, ErrorKind, Nano};

/// The longest prompt, in characters.
pub const MAX_PROMPT: usize = 32_000;
/// The longest tag, in characters.
pub const MAX_TAG: usize = 64;
const MAX_METADATA: usize = 16 * 1024;
const MAX_URL: usize = 2048;

/// A checked request for a job, with snake_case names.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRequest {
    /// The model asked for, as it was written; `None`, `auto` or `auto/<modality>` mean the default.
    pub model: Option<String>,
    /// Where to send the record when the job ends; not yet checked against the network rules.
    pub webhook_url: Option<String>,
    /// The owner's own data, a JSON object.
    pub metadata: Option<String>,
    /// Everything else, for the provider: `prompt`, `duration`, `aspect_ratio` and so on.
    pub params: Map<String, Value>,
}

impl JobRequest {
    /// Reads and checks the body of a job route.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let object = RawObject::parse(body)?;
        let mut params = Map::new();
        for (name, value) in object.iter() {
            let value = serde_json::from_str(value.get())
                .map_err(|_| Error::invalid(name, format!("`{name}` is not a value this gateway can read.")))?;
            let key = snake_case(name);
            if params.insert(key.clone(), value).is_some() {
                return Err(Error::invalid(&key, format!("`{key}` is given twice, in two spellings.")));
            }
        }
        let model = take_text(&mut params, "model", 256)?;
        let webhook_url = take_text(&mut params, "webhook_url", MAX_URL)?;
        let metadata = match params.remove("metadata") {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(Value::Object(map).to_string()),
            Some(_) => return Err(Error::invalid("metadata", "`metadata` must be an object.")),
        };
        if metadata.as_ref().is_some_and(|text| text.len() > MAX_METADATA) {
            return Err(Error::invalid("metadata", "`metadata` is larger than 16 kB."));
        }
        check_prompt(&mut params)?;
        for name in ["aspect_ratio", "resolution", "lyrics", "image_url"] {
            if !matches!(params.get(name), None | Some(Value::Null | Value::String(_))) {
                return Err(Error::invalid(name, format!("`{name}` must be a string.")));
            }
        }
        params.retain(|_, value| !value.is_null());
        Ok(Self { model, webhook_url, metadata, params })
    }

    /// The seconds asked for.
    ///
    /// # Errors
    /// A 400 when `duration` is not a positive number.
    pub fn duration(&self) -> Result<Option<f64>, Error> {
        let number = match self.params.get("duration") {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        match number.filter(|seconds| seconds.is_finite() && *seconds > 0.0) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(Error::invalid("duration", "`duration` must be a positive number of seconds.")),
        }
    }
}

fn check_prompt(params: &mut Map<String, Value>) -> Result<(), Error> {
    if let Some(Value::Number(number)) = params.get("prompt") {
        let digits = number.to_string();
        params.insert("prompt".into(), Value::String(digits));
    }
    match params.get("prompt") {
        Some(Value::String(prompt)) if prompt.trim().is_empty() => {
            Err(Error::invalid("prompt", "`prompt` is empty. Say what to make."))
        }
        Some(Value::String(prompt)) if prompt.chars().count() > MAX_PROMPT => {
            Err(Error::invalid("prompt", format!("`prompt` is longer than {MAX_PROMPT} characters.")))
        }
        Some(Value::String(_)) => Ok(()),
        None | Some(Value::Null) => Err(Error::invalid("prompt", "`prompt` is required.")),
        Some(_) => Err(Error::invalid("prompt", "`prompt` must be a string.")),
    }
}

fn take_text(params: &mut Map<String, Value>, name: &str, max: usize) -> Result<Option<String>, Error> {
    match params.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= max => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Value::String(_)) => Err(Error::invalid(name, format!("`{name}` is longer than {max} characters."))),
        Some(_) => Err(Error::invalid(name, format!("`{name}` must be a string."))),
    }
}

/// `webhook-url` and `webhookUrl` are `webhook_url`.
pub fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (i, c) in name.chars().enumerate() {
        if c == '-' {
            out.push('_');
        } else if c.is_ascii_uppercase() {
            if i > 0 {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// Checks a tag: the value of an `x-aig-tag` header, or one that is set for later requests.
///
/// # Errors
/// A 400 when it is longer than [`MAX_TAG`] characters.
pub fn check_tag(tag: &str) -> Result<(), Error> {
    if tag.chars().count() > MAX_TAG {
        return Err(Error::new(ErrorKind::InvalidRequest, format!("The tag is longer than {MAX_TAG} characters.")));
    }
    Ok(())
}

/// What a completed job made, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResultBody {
    /// A link that needs no key.
    pub url: String,
    /// The same link.
    pub file_url: String,
    /// Such as `video.mp4`.
    pub filename: String,
    /// Such as `video/mp4`.
    pub content_type: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Seconds, for video and music.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Such as `320x180`, for video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
}

/// Why a job failed, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// The error code.
    pub code: String,
    /// The sentence.
    pub message: String,
}

/// What a job costs, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobUsage {
    /// Cents.
    #[schema(value_type = f64)]
    pub cost_cents: serde_json::Number,
}

/// The job record: the answer of every job route, and the body of its webhook. Times are Unix seconds.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobRecord {
    /// `job_…`
    pub id: String,
    /// Always `job`.
    pub object: String,
    /// Where it stands.
    pub status: JobStatus,
    /// What it makes.
    pub modality: Modality,
    /// The model's full id.
    pub model: String,
    /// When it was accepted.
    pub created: i64,
    /// The same.
    pub created_at: i64,
    /// When it last changed.
    pub updated_at: i64,
    /// When it ended.
    pub completed_at: Option<i64>,
    /// When it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<i64>,
    /// When its result is deleted.
    pub expires_at: Option<i64>,
    /// Per cent, when known.
    pub progress: Option<i64>,
    /// A link to the result that needs no key, good for 24 hours and fresh on every read.
    pub result_url: Option<String>,
    /// What it made.
    pub result: Option<ResultBody>,
    /// Why it failed, as a sentence.
    pub error: Option<String>,
    /// Why it failed, as a word.
    pub error_code: Option<String>,
    /// Both.
    pub error_detail: Option<ErrorDetail>,
    /// What it costs, in cents.
    #[schema(value_type = f64)]
    pub cost_cents: serde_json::Number,
    /// The same.
    pub usage: JobUsage,
    /// The label of its cost.
    pub tag: Option<String>,
    /// The owner's own data.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    /// The request that submitted it.
    pub request_id: String,
}

impl JobRecord {
    /// The record of `job`. `result_url` links its result, and is given exactly when there is one.
    pub fn new(job: &Job, result_url: Option<String>) -> Self {
        let result = job.result.clone().zip(result_url.clone()).map(|(result, url)| ResultBody {
            url: url.clone(),
            file_url: url,
            filename: result.filename,
            content_type: result.content_type,
            bytes: result.bytes,
            sha256: result.sha256,
            duration: result.duration,
            resolution: result.resolution,
        });
        let cost_cents = if job.status == JobStatus::Completed { job.cost } else { Nano::ZERO }.cents_json();
        Self {
            id: job.id.clone(),
            object: "job".into(),
            status: job.status,
            modality: job.modality,
            model: job.model.clone(),
            created: job.created_at.unix_seconds(),
            created_at: job.created_at.unix_seconds(),
            updated_at: job.updated_at.unix_seconds(),
            completed_at: job.completed_at.map(crate::Millis::unix_seconds),
            cancelled_at: job.cancelled_at.map(crate::Millis::unix_seconds),
            expires_at: job.expires_at.map(crate::Millis::unix_seconds),
            progress: job.progress,
            result_url: result.as_ref().and(result_url),
            result,
            error: job.error.as_ref().map(|error| error.message.clone()),
            error_code: job.error.as_ref().map(|error| error.code.as_str().to_owned()),
            error_detail: job
                .error
                .as_ref()
                .map(|error| ErrorDetail { code: error.code.as_str().into(), message: error.message.clone() }),
            usage: JobUsage { cost_cents: cost_cents.clone() },
            cost_cents,
            tag: job.tag.clone(),
            metadata: job.metadata.as_ref().and_then(|text| serde_json::from_str(text).ok()),
            request_id: job.request_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_clients_spellings_are_one() {
        for body in [
            r#"{"prompt":"x","webhook-url":"u"}"#,
            r#"{"prompt":"x","webhookUrl":"u"}"#,
            r#"{"prompt":"x","webhook_url":"u"}"#,
        ] {
            assert_eq!(JobRequest::parse(body.as_bytes()).unwrap().webhook_url.as_deref(), Some("u"), "{body}");
        }
        assert!(JobRequest::parse(br#"{"prompt":"x","webhookUrl":"u","webhook_url":"v"}"#).is_err());
    }

    #[test]
    fn digits_only_prompts_and_unknown_fields_pass() {
        let request =
            JobRequest::parse(br#"{"prompt":42,"duration":"5","style":{"a":[1]},"model":"auto/video"}"#).unwrap();
        assert_eq!(request.params["prompt"], "42");
        assert_eq!(request.params["style"]["a"][0], 1);
        assert_eq!(request.duration().unwrap(), Some(5.0));
        assert_eq!(request.model.as_deref(), Some("auto/video"));
    }

    #[test]
    fn bad_fields_are_named() {
        for (body, param) in [
            (r"{}", "prompt"),
            (r#"{"prompt":" "}"#, "prompt"),
            (r#"{"prompt":["x"]}"#, "prompt"),
            (r#"{"prompt":"x","model":1}"#, "model"),
            (r#"{"prompt":"x","metadata":1}"#, "metadata"),
            (r#"{"prompt":"x","image_url":{}}"#, "image_url"),
        ] {
            assert_eq!(JobRequest::parse(body.as_bytes()).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
        for duration in ["0", "-1", "\"x\"", "1e400", "null", "true"] {
            let parsed = JobRequest::parse(format!(r#"{{"prompt":"x","duration":{duration}}}"#).as_bytes());
            assert!(duration == "null" || parsed.and_then(|r| r.duration()).is_err(), "{duration}");
        }
    }
}
