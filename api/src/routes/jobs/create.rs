//! What `POST /v1/videos/generations`, `/v1/audio/music` and `/v1/3d/generations` share: accept a job.
//!
//! 202 means that the job is committed. The same `Idempotency-Key` with the same body answers 202 with the job's current
//! record and `Idempotent-Replayed: true`; with another body it is 422. What can go wrong: 400 naming the field, 402 below a cap, 404 for
//! a model that does not exist, 413, 415, 422, 503.

use aig_domain::catalog::{DurationRange, Modality};
use aig_domain::job::Job;
use aig_domain::job_request::JobRequest;
use aig_domain::{Error, ErrorKind};
use aig_tasks::{Accepted, Idempotency, NewJob};
use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::middleware::body::read_json;
use crate::middleware::context::Context;
use crate::middleware::headers;
use crate::state::ApiState;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A request for a video clip. Further fields go to the provider as they are.
#[derive(ToSchema)]
pub struct VideoRequest {
    /// What to show.
    pub prompt: String,
    /// `provider/name`; the default model when missing or `auto`.
    pub model: Option<String>,
    /// Seconds, within the model's range.
    pub duration: Option<f64>,
    /// Such as `16:9`.
    pub aspect_ratio: Option<String>,
    /// Such as `1280x720`.
    pub resolution: Option<String>,
    /// An image to begin with.
    pub image_url: Option<String>,
    /// Where to POST the job record when the job ends.
    pub webhook_url: Option<String>,
    /// Your own data, at most 16 kB; it comes back with the record.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

/// A request for music. Further fields go to the provider as they are.
#[derive(ToSchema)]
pub struct MusicRequest {
    /// What it should sound like.
    pub prompt: String,
    /// `provider/name`; the default model when missing or `auto`.
    pub model: Option<String>,
    /// Seconds, within the model's range.
    pub duration: Option<f64>,
    /// What is sung.
    pub lyrics: Option<String>,
    /// No vocals.
    pub is_instrumental: Option<bool>,
    /// Where to POST the job record when the job ends.
    pub webhook_url: Option<String>,
    /// Your own data, at most 16 kB; it comes back with the record.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

/// A request for a 3D mesh. Further fields go to the provider as they are.
#[derive(ToSchema)]
pub struct ThreeDRequest {
    /// What to model.
    pub prompt: String,
    /// `provider/name`; the default model when missing or `auto`.
    pub model: Option<String>,
    /// An image to begin with.
    pub image_url: Option<String>,
    /// Where to POST the job record when the job ends.
    pub webhook_url: Option<String>,
    /// Your own data, at most 16 kB; it comes back with the record.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

/// Accepts a job of `modality` sent to `route`, such as `POST /v1/audio/music`.
pub async fn accept(
    api: &ApiState,
    context: &Context,
    caller: Caller,
    route: &'static str,
    modality: Modality,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let tag = caller.key.payer(headers::tag(&parts.headers)?).tag;
    let key = headers::idempotency_key(&parts.headers)?;
    let body = read_json(&parts.headers, body, api.job_body).await?;
    let request = JobRequest::parse(&body)?;
    let idempotency = key.map(|key| Idempotency { key, route, body_sha256: hex::encode(Sha256::digest(&body)) });
    let answer = match new_job(api, &caller, tag, modality, request) {
        Ok(job) => {
            let job = NewJob { request_id: context.request_id.clone(), ..job };
            api.app.tasks.submit(job, idempotency).await?
        }
        Err(refused) => {
            // What is refused today may have been accepted when the first request with this key came.
            let Some(key) = idempotency else { return Err(refused.into()) };
            api.app.tasks.earlier(&caller.account_id, key).await?.ok_or(refused)?
        }
    };
    match answer {
        Accepted::New(job) => Ok(accepted(api, &job)),
        Accepted::Replayed(job) => {
            let mut response = accepted(api, &job);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Accepted::Mismatch => Err(mismatch().into()),
        // The engine makes this an error.
        Accepted::Refused(_) => Err(Error::internal().into()),
    }
}

fn new_job(
    api: &ApiState,
    caller: &Caller,
    tag: Option<String>,
    modality: Modality,
    mut request: JobRequest,
) -> Result<NewJob, Error> {
    let app = &api.app;
    let model = caller.model(api, modality, request.model.as_deref())?;
    fill_in_duration(&mut request, &model.id, model.duration)?;
    if let Some(url) = &request.webhook_url {
        let checked = app.fetcher.policy().check_url(url);
        checked.map_err(|refused| Error::invalid("webhook_url", refused.to_string()))?;
    }
    let payer = caller.key.payer(tag);
    let cost = aig_inference::job_cost(&model, modality, &request.params, caller.key.is_capped(&payer))?;
    Ok(NewJob {
        account_id: caller.account_id.clone(),
        payer,
        cost,
        price: model.price,
        key_id: caller.key.id.clone(),
        request_id: String::new(),
        modality,
        model,
        params: request.params,
        metadata: request.metadata,
        webhook_url: request.webhook_url,
    })
}

/// Holds `duration` to the model's range, and fills in the default, so that the provider and the price agree on it.
fn fill_in_duration(request: &mut JobRequest, model: &str, range: Option<DurationRange>) -> Result<(), Error> {
    let asked = request.duration()?;
    if let (Some(seconds), Some(DurationRange { min, max, .. })) = (asked, range)
        && !(min..=max).contains(&seconds)
    {
        let message = format!("`duration` must be from {min} to {max} seconds for {model}. Nothing was done.");
        return Err(Error::invalid("duration", message));
    }
    if let Some(seconds) = asked.or(range.map(|range| range.default))
        && !matches!(request.params.get("duration"), Some(Value::Number(_)))
        && let Some(number) = Number::from_f64(seconds)
    {
        request.params.insert("duration".into(), Value::Number(number));
    }
    Ok(())
}

fn accepted(api: &ApiState, job: &Job) -> Response {
    let record = api.app.links.record(job, api.app.clock.now());
    let mut response = (StatusCode::ACCEPTED, Json(record)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{}", job.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn mismatch() -> Error {
    let message = "This Idempotency-Key was used before with another body. Nothing was done or charged. \
        Send the same body, or a new key.";
    Error::new(ErrorKind::IdempotencyMismatch, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: DurationRange = DurationRange { min: 0.5, max: 60.0, default: 4.0 };

    fn filled(body: &str, range: Option<DurationRange>) -> Result<Option<Value>, Error> {
        let mut request = JobRequest::parse(body.as_bytes()).unwrap();
        fill_in_duration(&mut request, "sandbox/video", range)?;
        Ok(request.params.remove("duration"))
    }

    #[test]
    fn the_duration_is_checked_and_filled_in() {
        assert_eq!(filled(r#"{"prompt":"x"}"#, Some(RANGE)).unwrap(), Some(4.0.into()));
        assert_eq!(filled(r#"{"prompt":"x"}"#, None).unwrap(), None);
        assert_eq!(filled(r#"{"prompt":"x","duration":60}"#, Some(RANGE)).unwrap(), Some(60.into()));
        assert_eq!(filled(r#"{"prompt":"x","duration":"0.5"}"#, Some(RANGE)).unwrap(), Some(0.5.into()));
        assert_eq!(filled(r#"{"prompt":"x","duration":900}"#, None).unwrap(), Some(900.into()));
        for bad in ["0.4", "60.5", "\"61\"", "-1"] {
            let error = filled(&format!(r#"{{"prompt":"x","duration":{bad}}}"#), Some(RANGE)).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("duration"), "{bad}");
        }
        let error = filled(r#"{"prompt":"x","duration":61}"#, Some(RANGE)).unwrap_err();
        assert!(error.message.contains("0.5 to 60 seconds"), "{}", error.message);
    }
}
