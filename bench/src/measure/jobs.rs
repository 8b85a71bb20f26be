//! Durable jobs on each database: how many are accepted per second, and how many are finished.
//!
//! The jobs are the sandbox's meshes, which take no time: what is left is the gateway's own work, one durable file each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aig_testkit::eventually;
use anyhow::Context as _;
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Settings;
use crate::cpu::{family, used};
use crate::http1::get;
use crate::load::{CONNECTIONS, Load, Plan};
use crate::pin::Place;
use crate::serve::gateway::Gateway;
use crate::serve::{gateway, postgres};
use crate::stats::{micros_each, rate, short, thousands};
use crate::table::Table;

/// When jobs that are not done are given up.
const PATIENCE: Duration = Duration::from_mins(10);

/// Measures it.
pub async fn run(settings: &Settings) -> anyhow::Result<Table> {
    settings.cores.go(Place::All)?;
    let mut folders = Folders::new();
    let mut notes = vec![
        "accepted: 202 after the commit. finished: from the first request until all are completed, files stored."
            .into(),
    ];
    let mut rows = vec![("SQLite".to_owned(), row(settings, &[], &mut folders).await.context("SQLite")?)];
    if let Some(database) = postgres::create()? {
        let url = database.url()?;
        rows.push((
            "PostgreSQL".into(),
            row(settings, &[("AIG_DATABASE_URL", &url)], &mut folders).await.context("PostgreSQL")?,
        ));
        notes.push(database.about.clone());
    } else {
        notes.push("PostgreSQL: SKIPPED, none answers; set AIG_TEST_POSTGRES_URL or run deploy/services up".into());
    }
    Ok(Table {
        title: format!(
            "jobs: {} meshes of the sandbox over {CONNECTIONS} connections\n  \
             gateway, database and load generator share all cores, while jobs are accepted others are worked on",
            thousands(crate::stats::float(settings.jobs))
        ),
        columns: vec!["accepted/s", "finished/s", "CPU µs/job of the gateway"],
        rows,
        notes,
    })
}

/// Deleting thousands of files makes creating others slow for seconds on ext4, so folders stay until all is measured.
type Folders = Vec<Arc<TempDir>>;

async fn row(settings: &Settings, vars: &[(&str, &str)], folders: &mut Folders) -> anyhow::Result<Vec<String>> {
    let gateway = gateway::start(&settings.cores, Place::All, "", vars).await?;
    folders.push(gateway.process.folder());
    let body = json!({ "prompt": "a lighthouse on a rock" });
    let plan = Plan::post(gateway.address, "/v1/3d/generations", &gateway.key, &body, StatusCode::ACCEPTED)?;
    let family = family(gateway.process.id());
    let (begun, cpu) = (Instant::now(), used(&family)?);
    let mut load = Load::of(plan, settings.jobs);
    load.done(PATIENCE).await?;
    let accepted = begun.elapsed();
    let seen = load.seen();
    anyhow::ensure!(
        seen.calls == settings.jobs,
        "{} refused, the first: {}",
        seen.errors,
        load.complaint().unwrap_or("")
    );
    let all_ended = || async { (ended(&gateway).await.ok()? >= settings.jobs).then_some(()) };
    eventually("all jobs end", PATIENCE, all_ended).await?;
    let (finished, cpu) = (begun.elapsed(), used(&family)?.saturating_sub(cpu));
    let completed = completed(&gateway).await?;
    anyhow::ensure!(completed == settings.jobs, "{completed} of {} completed", settings.jobs);
    Ok(vec![
        thousands(rate(settings.jobs, accepted)),
        thousands(rate(settings.jobs, finished)),
        short(micros_each(cpu, settings.jobs)),
    ])
}

/// How many jobs have ended, by the gateway's own count: asking for it touches no database.
async fn ended(gateway: &Gateway) -> anyhow::Result<u64> {
    let metrics = get(gateway.address, "/metrics", &gateway.key).await?;
    let lines = std::str::from_utf8(&metrics)?.lines();
    let counts = lines.filter(|line| line.starts_with("aig_jobs_ended_total{"));
    Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

/// How many jobs are completed, counted one by one.
async fn completed(gateway: &Gateway) -> anyhow::Result<u64> {
    let (mut count, mut after) = (0, String::new());
    loop {
        let path = format!("/v1/jobs?limit=100&status=completed{after}");
        let page: Value = serde_json::from_slice(&get(gateway.address, &path, &gateway.key).await?)?;
        count += page["data"].as_array().context("a page has data")?.len() as u64;
        if page["has_more"] != true {
            return Ok(count);
        }
        after = format!("&after={}", page["last_id"].as_str().context("a page has last_id")?);
    }
}
