//! What the money path costs: chat calls of customers with a rate limit, without a cap and with one, beside plain pass-through;
//! and whether a customer who goes on asking at its cap slows another.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::Settings;
use crate::http1::post_with;
use crate::load::{CONNECTIONS, Plan};
use crate::pin::Place;
use crate::replay::{PATH, question};
use crate::rounds::{Sample, Series, Target, interleaved};
use crate::serve::{gateway, nginx, upstream};
use crate::stats::short;
use crate::table::Table;

/// About 600 bytes of answer.
const WORDS: u32 = 64;
/// How often the customer at its cap asks.
const REFUSED_EVERY: Duration = Duration::from_millis(5);
/// So many cents a month that nobody reaches them, and so many requests a minute.
const PLENTY: u32 = 1_000_000;

/// Measures it.
pub async fn run(settings: &Settings) -> anyhow::Result<Table> {
    let cores = &settings.cores;
    cores.go(Place::Load)?;
    let upstream = upstream::start(cores, WORDS, false).await?;
    let nginx = nginx::start(cores, upstream.address, true).await?;
    let provider =
        format!("[providers.up]\nkind = 'openai'\nbase_url = 'http://{}/v1'\nmodels = '*'\n", upstream.address);
    let price = "[models.'up/fake']\ninput_cents_per_million = 15\noutput_cents_per_million = 60\n";
    let quiet = [("AIG_LOG", "warn")];
    let plain = gateway::start(cores, Place::Proxy, &provider, &quiet).await?;
    let paid = gateway::start(cores, Place::Proxy, &format!("{provider}{price}"), &quiet).await?;
    let limited = customer(&paid, &json!({ "rate_limit_rpm": PLENTY })).await?;
    let capped = customer(&paid, &json!({ "rate_limit_rpm": PLENTY, "spend_cap_cents": PLENTY })).await?;
    let spent = customer(&paid, &json!({ "spend_cap_cents": 0 })).await?;

    let body = question(WORDS, false);
    let target = |name: &str, process, address, key: &str| {
        let plan = Plan::post(address, PATH, key, &body, StatusCode::OK)?;
        anyhow::Ok(Target { name: name.into(), plan, process })
    };
    let targets = [
        target(&format!("{}, plain pass-through", nginx.name), &nginx.process, nginx.address, &plain.key)?,
        target("aigateway, no price", &plain.process, plain.address, &plain.key)?,
        target("  price and rate limit", &paid.process, paid.address, &limited)?,
        target("  price, rate limit and cap", &paid.process, paid.address, &capped)?,
    ];
    let mut series = interleaved(settings, &targets).await?;
    let beside = [target("  the same, beside one at its cap", &paid.process, paid.address, &capped)?];
    series.extend(beside_refused(settings, &beside, paid.address, &spent).await?);
    let [control, ..] = series.as_slice() else { anyhow::bail!("not a series for each target") };
    let row = |own: &Series| {
        let cells = vec![
            short(own.median(Sample::calls)),
            short(own.median(Sample::micros_per_call)),
            format!("{:.0} %", own.median(Sample::busy)),
            short(own.ratio(control, Sample::micros_per_call)),
        ];
        (own.name.clone(), cells)
    };
    Ok(Table {
        title: format!(
            "money: chat calls over {CONNECTIONS} connections, SQLite, {} rounds of {} s, medians\n  {}",
            settings.rounds,
            settings.seconds.as_secs(),
            settings.cores.say(),
        ),
        columns: vec!["calls/s", "CPU µs/call", "busy", "CPU x nginx"],
        rows: series.iter().map(row).collect(),
        notes: series.iter().filter_map(Series::note).collect(),
    })
}

/// Makes a sub-account; gives its key.
async fn customer(gateway: &gateway::Gateway, terms: &Value) -> anyhow::Result<String> {
    let mut body = json!({ "name": "bench" });
    for (name, value) in terms.as_object().into_iter().flatten() {
        body[name.as_str()] = value.clone();
    }
    let (status, answer) = post_with(gateway.address, "/v1/sub-accounts", &gateway.key, &body).await?;
    anyhow::ensure!(status == StatusCode::CREATED, "{status}: {}", String::from_utf8_lossy(&answer));
    let record: Value = serde_json::from_slice(&answer)?;
    Ok(record["key"].as_str().context("no key")?.to_owned())
}

/// Loads `targets` while a customer at its cap asks again and again, and is refused each time.
async fn beside_refused(
    settings: &Settings,
    targets: &[Target<'_>],
    address: SocketAddr,
    key: &str,
) -> anyhow::Result<Vec<Series>> {
    let refused = async {
        let body = question(WORDS, false);
        let mut timer = interval(REFUSED_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let (status, answer) = post_with(address, PATH, key, &body).await?;
            anyhow::ensure!(status == StatusCode::PAYMENT_REQUIRED, "{status}: {}", String::from_utf8_lossy(&answer));
        }
    };
    tokio::select! {
        series = interleaved(settings, targets) => series,
        ended = refused => ended,
    }
}
