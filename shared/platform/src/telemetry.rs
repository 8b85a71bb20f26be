//! Logs and metrics. Logs go to stderr; they hold ids, counts and reasons, never keys, prompts or bodies.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::{Config, Shutdown};

/// The upper bounds of the buckets of every duration, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];
/// The upper bounds of the buckets of a batch's size.
const ITEMS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// How often recorded samples are folded into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Renders the metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes this process record metrics. Once per process; later calls record into the first one.
    ///
    /// # Errors
    /// Only when the buckets are wrong, which tests would show.
    pub fn install() -> anyhow::Result<Self> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_items".into()), &ITEMS)?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // A second App in one process (a test) keeps the first recorder; its own handle then shows nothing.
        if metrics::set_global_recorder(recorder).is_ok() {
            metrics::gauge!("aig_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        }
        Ok(Self(handle))
    }

    /// Keeps what is recorded in bounds while nobody asks for it. Ends when the shutdown begins.
    pub async fn upkeep(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.stopping() => return,
                () = tokio::time::sleep(UPKEEP) => self.0.run_upkeep(),
            }
        }
    }

    /// The metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// How many lines may wait to be written. What does not fit is dropped: a log that nobody reads must stop no request.
const MOST_LINES: usize = 16 * 1024;

/// Writes what is left of the log when it is dropped.
pub struct Logs(#[expect(dead_code, reason = "it works by being dropped")] WorkerGuard);

/// Sends log lines to stderr, from a thread of its own, and makes panics log where they happened, without what they said: that
/// may hold a prompt.
///
/// # Errors
/// When the filter makes no sense, or logging was begun before.
pub fn init_logs(config: &Config) -> anyhow::Result<Logs> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("AIG_LOG: `{}` is no filter", config.log))?;
    let stderr = std::io::BufWriter::new(std::io::stderr());
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(MOST_LINES).finish(stderr);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let json = config.log_json.unwrap_or_else(|| !std::io::stderr().is_terminal());
    let begun = if json {
        subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        subscriber.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    begun.map_err(|error| anyhow::anyhow!("logging was begun twice: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic: this is a bug");
    }));
    Ok(Logs(guard))
}
