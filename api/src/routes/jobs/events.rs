//! `GET /v1/jobs/{id}/events`: a job as it changes, as server-sent events.
//!
//! Each event is the whole record; its id is the row's version. The first comes at once, the last is the job's end, and a
//! client that reconnects with `Last-Event-ID` goes on from there: no history is kept, the row is enough. It does not matter
//! which api process answers. What can go wrong: 404, also for somebody else's job.

use std::convert::Infallible;
use std::time::Duration;

use aig_domain::job::Job;
use aig_domain::{Error, ErrorKind};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::error::{ApiError, event};
use crate::job_watch::Watcher;
use crate::middleware::auth::Caller;
use crate::middleware::context::Ctx;
use crate::routes::jobs::get::no_such_job;
use crate::state::Api;

/// After this much silence the client gets a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How soon a client should reconnect, in milliseconds.
const RETRY: u32 = 1000;

/// Follow a job.
///
/// Server-sent events named `job`, each with the whole record; the id is its version. Ends when the job has ended. Reconnect with
/// `Last-Event-ID` to go on.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    params(
        ("id" = String, Path, description = "`job_…`"),
        ("last-event-id" = Option<String>, Header, description = "The id of the last event that was read."),
    ),
    responses((status = 200, description = "The job as it changes.", content_type = "text/event-stream", body = String)),
)]
pub async fn handler(
    State(api): State<Api>,
    Ctx(context): Ctx,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let seen = last_event_id(&headers)?;
    let job = api.app.store.job(&caller.account_id, &id).await?.ok_or_else(no_such_job)?;
    let watcher = api.jobs.watch(&job.id, job.version);
    let follow = Follow { api, account_id: caller.account_id, request_id: context.request_id.clone(), watcher, seen };
    let events = stream::unfold(Next::Tell(follow, Box::new(job)), step);
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL.as_str(), "no-cache"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<i64, Error> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let version = value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|version| *version >= 0);
    version.ok_or_else(|| {
        let message = "Last-Event-ID must be the id of an event of this stream. Leave it out to begin anew.";
        Error::new(ErrorKind::InvalidRequest, message)
    })
}

/// One client on its way through the versions of a job.
struct Follow {
    api: Api,
    account_id: String,
    request_id: String,
    watcher: Watcher,
    /// The last version that the client has.
    seen: i64,
}

enum Next {
    /// Tell the client of this row, if it does not know it.
    Tell(Follow, Box<Job>),
    /// Wait for a newer one.
    Wait(Follow),
    End,
}

async fn step(mut next: Next) -> Option<(Result<Bytes, Infallible>, Next)> {
    loop {
        next = match next {
            Next::End => return None,
            Next::Tell(mut follow, job) => {
                let is_news = job.version > follow.seen;
                follow.seen = job.version.max(follow.seen);
                let text = is_news.then(|| follow.record(&job));
                let after = if job.status.is_terminal() { Next::End } else { Next::Wait(follow) };
                match text {
                    Some(text) => return Some((Ok(text), after)),
                    None => after,
                }
            }
            Next::Wait(mut follow) => {
                let must_end = follow.api.shutdown.streams_must_end();
                let changed = tokio::select! {
                    () = follow.watcher.changed() => true,
                    () = tokio::time::sleep(KEEP_ALIVE) => false,
                    () = must_end.cancelled() => {
                        let error = Error::unavailable("The gateway is restarting. Reconnect with Last-Event-ID.", 1);
                        let last = event(&error, &follow.request_id);
                        return Some((Ok(last.into()), Next::End));
                    }
                };
                if !changed {
                    return Some((Ok(Bytes::from_static(b": keep-alive\n\n")), Next::Wait(follow)));
                }
                match follow.api.app.store.job(&follow.account_id, follow.watcher.job_id()).await {
                    Ok(Some(job)) => Next::Tell(follow, Box::new(job)),
                    Ok(None) => Next::End,
                    Err(error) => {
                        let last = event(&error.into(), &follow.request_id);
                        return Some((Ok(last.into()), Next::End));
                    }
                }
            }
        };
    }
}

impl Follow {
    fn record(&self, job: &Job) -> Bytes {
        let record = self.api.app.links.record(job, self.api.app.clock.now());
        // A record is strings and numbers, so this cannot fail; an empty line would only end the event.
        let data = serde_json::to_string(&record).unwrap_or_default();
        Bytes::from(format!("retry: {RETRY}\nevent: job\nid: {}\ndata: {data}\n\n", job.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_id_is_a_version() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", text.parse().unwrap());
            last_event_id(&headers)
        };
        assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), 0);
        assert_eq!(read("7").unwrap(), 7);
        for bad in ["", "x", "-1", "1.5", "99999999999999999999"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
