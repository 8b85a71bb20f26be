//! Where it was measured, and what the host took away meanwhile.

use std::fmt::{Display, Formatter};
use std::process::Command;

use anyhow::Context as _;

/// The machine and the commit, as it was when the measurements began.
pub struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    commit: String,
    load: String,
    begun: Ticks,
}

impl Machine {
    /// Looks at the machine and the repository around.
    pub fn find() -> anyhow::Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let named = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: named.map_or("unknown CPU", |(_, name)| name.trim()).to_owned(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            commit: commit().unwrap_or_else(|| "unknown".into()),
            load: std::fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or("").to_owned(),
            begun: Ticks::now()?,
        })
    }

    /// What share of the time the host gave to others, for the reader.
    pub fn stolen(&self) -> anyhow::Result<String> {
        let now = Ticks::now()?;
        let share = (now.stolen - self.begun.stolen) * 100 / (now.all - self.begun.all).max(1);
        Ok(format!("\nsteal: the host took {share} % of the CPU time meanwhile; compare ratios, not runs"))
    }
}

impl Display for Machine {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "machine: {} cores, {}, Linux {}", self.cores, self.cpu, self.kernel)?;
        writeln!(out, "commit:  {}", self.commit)?;
        write!(out, "load:    {} before; anything above 0.3 is others' work, which makes figures worse", self.load)
    }
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changed| !changed.is_empty());
    Some(if changed { format!("{commit} with uncommitted changes") } else { commit })
}

/// Time of all cores so far, in ticks.
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    fn now() -> anyhow::Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat")?).context("/proc/stat has no line `cpu`")
    }

    /// `cpu user nice system idle iowait irq softirq steal guest guest_nice`; the guests are in user and nice already.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
        Some(Self { all: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_field() {
        let ticks = Ticks::parse("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n").unwrap();
        assert_eq!((ticks.all, ticks.stolen), (36, 8));
        assert!(Ticks::parse("cpu0 1\n").is_none());
    }
}
