//! What processes cost: user and system time from `/proc`, with all threads and children.

use std::time::Duration;

use anyhow::Context as _;

/// The unit of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every Linux in use.
const TICK: Duration = Duration::from_millis(10);

/// One line of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    time: Duration,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The second field is the name in parentheses, which may itself have spaces and parentheses.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u32>().ok()?.checked_add(fields.get(12)?.parse().ok()?)?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, time: TICK * ticks })
    }

    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// A process and all below it that are there now.
pub fn family(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, Stat::of(pid)?.parent))).collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        at += 1;
    }
    found
}

/// The CPU time that these processes have used so far. `stat` sums the threads of a process, ended ones too.
pub fn used(family: &[u32]) -> anyhow::Result<Duration> {
    family
        .iter()
        .map(|pid| Some(Stat::of(*pid)?.time))
        .sum::<Option<Duration>>()
        .context("a measured process has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 150 50 9 9 20 0 3 0 100 1 1";
        assert_eq!(Stat::parse(line), Some(Stat { parent: 7, time: Duration::from_secs(2) }));
        assert_eq!(Stat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn a_child_is_in_the_family() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        assert!(used(&[child.id()]).unwrap() < Duration::from_secs(1));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(used(&[child.id()]).is_err());
    }
}
