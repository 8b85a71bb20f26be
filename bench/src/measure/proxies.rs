//! What the measurements of chat have in common: the upstream, nginx and the gateway side by side, asked for the same.

use http::StatusCode;

use crate::Settings;
use crate::load::{CONNECTIONS, Plan};
use crate::pin::Place;
use crate::replay::{PATH, question};
use crate::rounds::{Sample, Series, Target, interleaved};
use crate::serve::{gateway, nginx, upstream};
use crate::stats::{short, span};
use crate::table::Table;

/// How busy a proxy must be, in percent, for its CPU time to be that of a proxy that never waits.
const BUSY: f64 = 85.0;

/// What an answer is asked for.
pub struct Ask {
    /// How many words the upstream answers with.
    pub words: u32,
    /// Whether it streams them.
    pub stream: bool,
}

/// A column of the table: its name, and what a sample says there.
pub type Column = (&'static str, fn(&Sample) -> f64);

/// Calls the upstream directly, through nginx and through the gateway, in turn. `cost` is compared with nginx's.
pub async fn side_by_side(
    settings: &Settings,
    what: &str,
    ask: &Ask,
    rates: &[Column],
    cost: Column,
) -> anyhow::Result<Table> {
    let cores = &settings.cores;
    cores.go(Place::Load)?;
    let upstream = upstream::start(cores, ask.words, ask.stream).await?;
    let nginx = nginx::start(cores, upstream.address, !ask.stream).await?;
    let toml = format!("[providers.up]\nkind = 'openai'\nbase_url = 'http://{}/v1'\nmodels = '*'\n", upstream.address);
    let ours = gateway::start(cores, Place::Proxy, &toml, &[]).await?;
    let quiet = gateway::start(cores, Place::Proxy, &toml, &[("AIG_LOG", "warn")]).await?;

    let body = question(ask.words, ask.stream);
    let target = |name: &str, process, address, key: &str| {
        let plan = Plan::post(address, PATH, key, &body, StatusCode::OK)?;
        anyhow::Ok(Target { name: name.into(), plan, process })
    };
    let targets = [
        target("direct (CPU: upstream)", &upstream.process, upstream.address, &ours.key)?,
        target(&format!("{}, no access log", nginx.name), &nginx.process, nginx.address, &ours.key)?,
        target("aigateway", &ours.process, ours.address, &ours.key)?,
        target("aigateway, AIG_LOG=warn", &quiet.process, quiet.address, &quiet.key)?,
    ];
    let series = interleaved(settings, &targets).await?;
    let [_, control, ..] = series.as_slice() else { anyhow::bail!("not a series for each target") };

    let row = |(at, own): (usize, &Series)| {
        let (low, high) = span(own.samples.iter().map(cost.1));
        let mut cells: Vec<String> = rates.iter().map(|(_, rate)| short(own.median(rate))).collect();
        cells.extend([short(own.median(cost.1)), format!("{}-{}", short(low), short(high))]);
        cells.push(format!("{:.0} %", own.median(Sample::busy)));
        // Of the direct calls it is the CPU of something else.
        cells.push(if at == 0 { "-".into() } else { short(own.ratio(control, cost.1)) });
        (own.name.clone(), cells)
    };
    let mut columns: Vec<&str> = rates.iter().map(|(name, _)| *name).collect();
    columns.extend([cost.0, "min-max", "busy", "CPU x nginx"]);
    Ok(Table {
        title: title(settings, what),
        columns,
        rows: series.iter().enumerate().map(row).collect(),
        notes: notes(&series),
    })
}

fn title(settings: &Settings, what: &str) -> String {
    format!(
        "{what}: {CONNECTIONS} connections, {} rounds of {} s in turn, medians\n  {}",
        settings.rounds,
        settings.seconds.as_secs(),
        settings.cores.say(),
    )
}

fn notes(series: &[Series]) -> Vec<String> {
    let mut notes: Vec<String> = series.iter().filter_map(Series::note).collect();
    // The upstream of the direct calls shares its core.
    let idle = |own: &&Series| own.median(Sample::busy) < BUSY;
    let idle: Vec<&str> = series.iter().skip(1).filter(idle).map(|own| own.name.as_str()).collect();
    if !idle.is_empty() {
        notes.push(format!("not saturated, so that CPU reads high and rates read low: {}", idle.join("; ")));
    }
    notes
}
