//! The distributed composition: jobs accepted and finished per second, beside what its parts can do by themselves.
//!
//! One process of each role. The jobs are the sandbox's meshes, which take no time; each ends with a signed webhook to this
//! process. What is left is the gateway's own work: rows, messages, one durable file and one delivery for each job.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::StatusCode;
use serde_json::json;

use crate::Settings;
use crate::control::{celery, commits, confirms};
use crate::cpu::{family, used};
use crate::http1::get;
use crate::load::{CONNECTIONS, Load, Plan};
use crate::pin::Place;
use crate::serve::postgres::{self, Database};
use crate::serve::receiver::Receiver;
use crate::serve::split::{Servers, Split, clean};
use crate::stats::{float, median, micros_each, rate, short, thousands};
use crate::table::Table;

const BROKER: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";
const CACHE: &str = "redis://127.0.0.1:6379";
/// When jobs that are not done are given up.
const PATIENCE: Duration = Duration::from_mins(5);
/// How many jobs are sent one by one.
const SINGLE: u64 = 50;
/// How often it is looked whether webhooks have arrived.
const LOOK: Duration = Duration::from_micros(200);

/// Measures it; a table that says what is missing when a server does not answer.
pub async fn run(settings: &Settings) -> anyhow::Result<Table> {
    settings.cores.go(Place::All)?;
    let broker = std::env::var("AIG_TEST_AMQP_URL").unwrap_or_else(|_| BROKER.into());
    let cache = std::env::var("AIG_TEST_REDIS_URL").unwrap_or_else(|_| CACHE.into());
    let Some(database) = postgres::create()? else { return Ok(skipped("PostgreSQL", "AIG_TEST_POSTGRES_URL")) };
    if confirms::connect(&broker).await.is_err() {
        return Ok(skipped("RabbitMQ", "AIG_TEST_AMQP_URL"));
    }
    if !answers(&cache).await {
        return Ok(skipped("Redis", "AIG_TEST_REDIS_URL"));
    }
    let prefix = format!("aig-bench-{}.", std::process::id());
    let mut rows = controls(settings, &database, &broker, &prefix).await?;
    let url = database.url()?;
    let url = if url.contains('?') { url } else { format!("{url}?sslmode=disable") };
    let servers = Servers { database: url, broker, cache, prefix };
    let measured = ours(settings, &database, &servers).await;
    // Also when it failed, and before the failure is told.
    let cleaned = clean(&servers).await;
    let (own, batches) = measured?;
    rows.extend(own);
    cleaned?;
    Ok(Table {
        title: format!(
            "distributed: {} meshes of the sandbox over {CONNECTIONS} connections, each with a signed webhook\n  \
             api, worker, scheduler, PostgreSQL, RabbitMQ, Redis, load generator and receiver share all cores",
            thousands(float(settings.distributed))
        ),
        columns: vec!["", "CPU µs/job: api", "worker", "PostgreSQL"],
        rows,
        notes: vec![
            "results go to a folder in memory where there is one: with many processes they belong on S3, not on a disk here.".into(),
            "the worker has 256 permits for jobs and 512 for webhooks; the defaults are 32 and 64.".into(),
            "accepted: 202 after the commit. finished: until the last signed webhook was answered with 2xx.".into(),
            format!("one at a time: {SINGLE} jobs on an idle gateway, the next when the webhook of the last is here."),
            batches,
            database.about.clone(),
        ],
    })
}

fn skipped(server: &str, variable: &str) -> Table {
    Table {
        title: "distributed: SKIPPED".into(),
        notes: vec![format!("{server} does not answer; set {variable} or run deploy/services up")],
        ..Table::default()
    }
}

/// Whether something listens at `redis://host:port`.
async fn answers(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.rsplit('@').next().unwrap_or(rest).split('/').next().unwrap_or(rest);
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:6379") };
    let connected = tokio::time::timeout(Duration::from_secs(2), tokio::net::TcpStream::connect(host));
    matches!(connected.await, Ok(Ok(_)))
}

type Row = (String, Vec<String>);

async fn controls(settings: &Settings, database: &Database, broker: &str, prefix: &str) -> anyhow::Result<Vec<Row>> {
    let confirmed = confirms::per_second(broker, &format!("{prefix}confirms")).await.context("RabbitMQ")?;
    let committed = commits::per_second(&settings.cores, database).await.context("PostgreSQL")?;
    let celery = celery::per_second(&settings.cores, broker, &format!("{prefix}celery")).await.context("Celery")?;
    let row = |name: String, rate: Option<f64>, missing: &str| {
        (name, vec![rate.map_or_else(|| format!("SKIPPED: {missing}"), |rate| format!("{}/s", thousands(rate)))])
    };
    let (window, bytes, tasks) = (confirms::WINDOW, confirms::BYTES, thousands(float(celery::TASKS)));
    Ok(vec![
        row(format!("RabbitMQ: {bytes} B confirmed, quorum queue, {window} at once"), Some(confirmed), ""),
        row(format!("PostgreSQL: commits of one row, {} connections", commits::CLIENTS), committed, "no pgbench"),
        row(
            format!("Celery: {tasks} waiting tasks that do nothing, -c 2"),
            celery.as_ref().map(|rates| rates.executed),
            "no Celery",
        ),
        row("  with the time to enqueue them".into(), celery.map(|rates| rates.in_all), "no Celery"),
    ])
}

async fn ours(settings: &Settings, database: &Database, servers: &Servers) -> anyhow::Result<(Vec<Row>, String)> {
    let split = Split::start(&settings.cores, servers).await?;
    let _data = split.data();
    let receiver = Receiver::start().await?;
    let body = json!({
        "prompt": "a lighthouse on a rock",
        "webhook_url": format!("http://{}/hook", receiver.address),
    });
    let plan = Plan::post(split.address, "/v1/3d/generations", &split.key, &body, StatusCode::ACCEPTED)?;
    let count = settings.distributed;

    let mut waits = Vec::new();
    for _ in 0..SINGLE {
        receiver.forget();
        accept(&plan, 1).await?;
        let accepted = Instant::now();
        let (_, arrived) = receiver.wait(1, LOOK, PATIENCE).await?;
        waits.push(arrived.saturating_duration_since(accepted).as_secs_f64() * 1e3);
    }

    receiver.forget();
    let meter = Meter::start(&split, database)?;
    split.worker.signal("-STOP");
    let paused = accept(&plan, count).await;
    split.worker.signal("-CONT");
    let paused = paused?;
    let accept_cost = meter.each(&split, database, count)?;

    let meter = Meter::start(&split, database)?;
    let begun = Instant::now();
    let (first, last) = receiver.wait(count, LOOK * 50, PATIENCE).await?;
    let drained = last.saturating_duration_since(begun);
    let deliveries = rate(count, last.saturating_duration_since(first));
    let drain_cost = meter.each(&split, database, count)?;

    receiver.forget();
    let meter = Meter::start(&split, database)?;
    let begun = Instant::now();
    let together = accept(&plan, count).await?;
    let (_, last) = receiver.wait(count, LOOK * 50, PATIENCE).await?;
    let finished = last.saturating_duration_since(begun);
    let together_cost = meter.each(&split, database, count)?;

    let per_second = |rate: f64| format!("{}/s", thousands(rate));
    let row = |name: &str, figure: String, cost: Option<&Vec<String>>| {
        (name.to_owned(), std::iter::once(figure).chain(cost.cloned().unwrap_or_default()).collect())
    };
    let rows = vec![
        row("accepted, worker paused", per_second(rate(count, paused)), Some(&accept_cost)),
        row("finished, of what waits, worker resumed", per_second(rate(count, drained)), Some(&drain_cost)),
        row("  webhooks delivered, first to last", per_second(deliveries), None),
        row("accepted, while others are worked on", per_second(rate(count, together)), None),
        row("finished, from the first request", per_second(rate(count, finished)), Some(&together_cost)),
        row("one at a time: 202 to webhook, median", format!("{} ms", short(median(waits))), None),
    ];
    let (api, worker) = (batches(split.address).await?, batches(split.worker_health).await?);
    Ok((rows, format!("rows per transaction, mean: {api}; {worker}")))
}

/// How many rows the transactions of a process had, by its own count: `accept 14.2`.
async fn batches(address: SocketAddr) -> anyhow::Result<String> {
    let metrics = get(address, "/metrics", "").await?;
    let text = std::str::from_utf8(&metrics)?;
    let value = |what: &str, lane: &str| -> Option<f64> {
        let start = format!("aig_store_batch_items_{what}{{lane=\"{lane}\"");
        text.lines().find(|line| line.starts_with(&start))?.rsplit_once(' ')?.1.parse().ok()
    };
    let mean = |lane| Some(format!("{lane} {}", short(value("sum", lane)? / value("count", lane)?)));
    Ok(["accept", "lease", "finish"].into_iter().filter_map(mean).collect::<Vec<_>>().join(", "))
}

/// Sends `count` jobs; gives how long it took until the last was accepted.
async fn accept(plan: &Plan, count: u64) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut load = Load::of(plan.clone(), count);
    load.done(PATIENCE).await?;
    let (took, seen) = (begun.elapsed(), load.seen());
    anyhow::ensure!(seen.calls == count, "{} refused, the first: {}", seen.errors, load.complaint().unwrap_or(""));
    Ok(took)
}

/// CPU time so far: of the api, the worker, and each of the database's own processes.
struct Meter {
    api: Duration,
    worker: Duration,
    postgres: Vec<(u32, Duration)>,
}

impl Meter {
    fn start(split: &Split, database: &Database) -> anyhow::Result<Self> {
        Ok(Self {
            api: used(&family(split.api.id()))?,
            worker: used(&family(split.worker.id()))?,
            // A server on another machine has none here.
            postgres: database.processes()?.into_iter().filter_map(|pid| Some((pid, used(&[pid]).ok()?))).collect(),
        })
    }

    /// What each of `count` jobs cost since then.
    fn each(&self, split: &Split, database: &Database, count: u64) -> anyhow::Result<Vec<String>> {
        let now = Self::start(split, database)?;
        let before =
            |pid| self.postgres.iter().find(|(known, _)| *known == pid).map_or(Duration::ZERO, |(_, cpu)| *cpu);
        let postgres: Duration = now.postgres.iter().map(|(pid, cpu)| cpu.saturating_sub(before(*pid))).sum();
        let each = |time: Duration| short(micros_each(time, count));
        Ok(vec![
            each(now.api.saturating_sub(self.api)),
            each(now.worker.saturating_sub(self.worker)),
            if now.postgres.is_empty() { "-".into() } else { each(postgres) },
        ])
    }
}
