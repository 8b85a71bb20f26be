//! Accepting jobs.

use std::time::Duration;

use aig_domain::caps::Payer;
use aig_domain::catalog::{Modality, Model};
use aig_domain::job::{Job, JobStatus, deadline};
use aig_domain::price::Price;
use aig_domain::{Error, Millis, Nano, id};
use serde_json::{Map, Value};

use crate::Tasks;

pub use aig_store::Accepted;

/// How long the idempotency key of a job is remembered.
const KEY_KEPT: Duration = Duration::from_hours(168);

/// A job as its route asks for it, checked.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Whose it is: an account, or a sub-account.
    pub account_id: String,
    /// Who pays.
    pub payer: Payer,
    /// What it costs when it completes, and at which prices; those are `None` for a model without any.
    pub cost: Nano,
    /// The prices.
    pub price: Option<Price>,
    /// The key that asks.
    pub key_id: String,
    /// The request that asks.
    pub request_id: String,
    /// What to make.
    pub modality: Modality,
    /// With which model.
    pub model: Model,
    /// The request for the provider: `prompt`, `duration` and so on.
    pub params: Map<String, Value>,
    /// The owner's own data, a JSON object.
    pub metadata: Option<String>,
    /// Where its record is sent when it ends; already allowed by the fetcher's policy.
    pub webhook_url: Option<String>,
}

/// What makes a repeated request the same request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The `Idempotency-Key` header.
    pub key: String,
    /// Method and route, such as `POST /v1/audio/music`.
    pub route: &'static str,
    /// SHA-256 of the body, hex.
    pub body_sha256: String,
}

impl Idempotency {
    fn kept_from(self, now: Millis) -> aig_store::Idempotency {
        let Self { key, route, body_sha256 } = self;
        aig_store::Idempotency { route, key, body_sha256, expires_at: now.plus(KEY_KEPT) }
    }
}

impl Tasks {
    /// What the first request of `account_id` with this key got: for a request that would not be accepted today. `None` when the
    /// key is free.
    ///
    /// # Errors
    /// A 503 when the store is down.
    pub async fn earlier(&self, account_id: &str, key: Idempotency) -> Result<Option<Accepted>, Error> {
        Ok(self.store.earlier_job(account_id, &key.kept_from(self.clock.now())).await?)
    }

    /// Accepts a job. When this returns, the job is committed; its worker is told without further waiting.
    ///
    /// # Errors
    /// A 402 when it does not fit under a cap; a 503 when the store is full or down.
    pub async fn submit(&self, new: NewJob, idempotency: Option<Idempotency>) -> Result<Accepted, Error> {
        let now = self.clock.now();
        let queue = new.modality.as_str();
        let job = Job {
            id: id::new("job_", now),
            deadline_at: now.plus(new.model.deadline.unwrap_or_else(|| deadline(new.modality))),
            account_id: new.account_id,
            payer_id: new.payer.account_id.clone(),
            key_id: new.key_id,
            request_id: new.request_id,
            modality: new.modality,
            model: new.model.id,
            provider: new.model.provider,
            status: JobStatus::Queued,
            params: Value::Object(new.params).to_string(),
            tag: new.payer.tag.clone(),
            metadata: new.metadata,
            webhook_url: new.webhook_url,
            progress: None,
            created_at: now,
            updated_at: now,
            completed_at: None,
            cancelled_at: None,
            expires_at: None,
            error: None,
            result: None,
            price: new.cost,
            cost: Nano::ZERO,
            version: 1,
        };
        let stored = aig_store::NewJob {
            task_id: id::new("task_", now),
            payer: new.payer.clone(),
            price: new.price.and_then(|price| serde_json::to_string(&price).ok()),
            idempotency: idempotency.map(|key| key.kept_from(now)),
            job,
        };
        let accepted = match self.store.accept_job(stored).await? {
            Accepted::Refused(exhausted) => return Err(Error::budget(*exhausted, &new.payer, now)),
            accepted => accepted,
        };
        if let Accepted::New(job) = &accepted {
            metrics::counter!("aig_jobs_accepted_total", "modality" => queue).increment(1);
            self.ring(queue, job.id.clone());
        }
        Ok(accepted)
    }
}
