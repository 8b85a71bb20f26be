//! Interleaved rounds: every target in turn, again and again, so that a bad minute of the host is everybody's.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::Settings;
use crate::cpu::{family, used};
use crate::load::{Load, Plan, Seen};
use crate::serve::Process;
use crate::stats::{median, micros_each, rate};

/// Before a round is measured: the connections open and the caches fill.
const WARM_UP: Duration = Duration::from_millis(300);

/// Something to load, and the process whose CPU time is measured.
pub struct Target<'a> {
    /// Its row in the table.
    pub name: String,
    /// What it is loaded with.
    pub plan: Plan,
    /// Whose CPU time counts.
    pub process: &'a Process,
}

/// One round of one target.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    seen: Seen,
    time: Duration,
    cpu: Duration,
}

impl Sample {
    /// Good answers per second.
    pub fn calls(&self) -> f64 {
        rate(self.seen.calls, self.time)
    }

    /// Events per second.
    pub fn events(&self) -> f64 {
        rate(self.seen.events, self.time)
    }

    /// CPU time of an answer in microseconds.
    pub fn micros_per_call(&self) -> f64 {
        micros_each(self.cpu, self.seen.calls)
    }

    /// CPU time of an event in microseconds.
    pub fn micros_per_event(&self) -> f64 {
        micros_each(self.cpu, self.seen.events)
    }

    /// How much of a core the process used, in percent. Far below 100 something else was the limit.
    pub fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() * 100.0 / self.time.as_secs_f64()
    }
}

/// All rounds of one target.
pub struct Series {
    /// The target's name.
    pub name: String,
    /// A sample for each round.
    pub samples: Vec<Sample>,
    /// The first thing that went wrong.
    pub complaint: Option<String>,
}

impl Series {
    /// The median over the rounds.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(of))
    }

    /// The median of this one's shares of `control`, round by round.
    pub fn ratio(&self, control: &Self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().zip(&control.samples).map(|(own, other)| of(own) / of(other).max(1e-9)))
    }

    /// What a reader must know about answers that were not good.
    pub fn note(&self) -> Option<String> {
        let errors: u64 = self.samples.iter().map(|sample| sample.seen.errors).sum();
        let complaint = self.complaint.as_ref()?;
        Some(format!("{}: {errors} answers were not good, the first: {complaint}", self.name))
    }
}

/// Loads the targets in turn.
pub async fn interleaved(settings: &Settings, targets: &[Target<'_>]) -> anyhow::Result<Vec<Series>> {
    let series = |target: &Target<'_>| Series { name: target.name.clone(), samples: Vec::new(), complaint: None };
    let mut all: Vec<Series> = targets.iter().map(series).collect();
    for _ in 0..settings.rounds {
        for (target, series) in targets.iter().zip(&mut all) {
            let (sample, complaint) = round(settings.seconds, target).await.with_context(|| target.name.clone())?;
            series.samples.push(sample);
            series.complaint = series.complaint.take().or(complaint);
        }
    }
    Ok(all)
}

async fn round(seconds: Duration, target: &Target<'_>) -> anyhow::Result<(Sample, Option<String>)> {
    let load = Load::endless(target.plan.clone());
    sleep(WARM_UP).await;
    let family = family(target.process.id());
    let (before, begun, cpu) = (load.seen(), Instant::now(), used(&family)?);
    sleep(seconds).await;
    let (after, time, cpu) = (load.seen(), begun.elapsed(), used(&family)?.saturating_sub(cpu));
    let complaint = load.complaint().map(str::to_owned);
    let stopped = load.stop().await;
    let seen = Seen {
        calls: after.calls - before.calls,
        events: after.events - before.events,
        errors: after.errors - before.errors,
    };
    anyhow::ensure!(seen.calls > 0, "no good answer: {}", complaint.as_deref().unwrap_or("none at all"));
    stopped?;
    Ok((Sample { seen, time, cpu }, complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(micros: &[u64]) -> Series {
        let sample = |micros: &u64| Sample {
            seen: Seen { calls: 1000, events: 4000, errors: 1 },
            time: Duration::from_secs(2),
            cpu: Duration::from_micros(micros * 1000),
        };
        Series { name: "x".into(), samples: micros.iter().map(sample).collect(), complaint: Some("503".into()) }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (own, control) = (series(&[20, 80, 60]), series(&[10, 20, 30]));
        assert_eq!(own.median(Sample::micros_per_call).to_string(), "60");
        assert_eq!(own.ratio(&control, Sample::micros_per_call).to_string(), "2");
        assert_eq!(own.median(Sample::micros_per_event).to_string(), "15");
        assert_eq!(
            (own.median(Sample::calls).to_string(), own.median(Sample::events).to_string()),
            ("500".into(), "2000".into())
        );
        assert_eq!(own.note().unwrap(), "x: 3 answers were not good, the first: 503");
    }
}
