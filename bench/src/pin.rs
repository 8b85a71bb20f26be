//! Which process runs on which core: a proxy is measured alone on one, so that nothing else is counted or in its way.

use std::process::{Command, Stdio};

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With the load generator and the upstream.
    Load,
    /// Alone.
    Proxy,
    /// Anywhere.
    All,
}

/// The cores that this process may use, and whether it can choose among them.
pub struct Cores {
    all: String,
    pinned: Option<(u32, u32)>,
}

impl Cores {
    /// Looks at the machine.
    pub fn find() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("").trim();
        let taskset = Command::new("taskset").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let can = taskset.is_ok_and(|status| status.success());
        Self { all: all.to_owned(), pinned: first_two(all).filter(|_| can) }
    }

    fn list(&self, place: Place) -> Option<String> {
        let (load, proxy) = self.pinned?;
        Some(match place {
            Place::Load => load.to_string(),
            Place::Proxy => proxy.to_string(),
            Place::All => self.all.clone(),
        })
    }

    /// A command for `program` that runs there. It becomes the program: the process id is the program's.
    pub fn command(&self, place: Place, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let Some(list) = self.list(place) else { return Command::new(program) };
        let mut command = Command::new("taskset");
        command.arg("-c").arg(list).arg(program);
        command
    }

    /// Moves this process, which is the load generator.
    pub fn go(&self, place: Place) -> anyhow::Result<()> {
        let Some(list) = self.list(place) else { return Ok(()) };
        let mut command = Command::new("taskset");
        command.args(["-a", "-c", "-p", &list, &std::process::id().to_string()]).stdout(Stdio::null());
        anyhow::ensure!(command.status()?.success(), "taskset cannot move this process to core {list}");
        Ok(())
    }

    /// For the reader.
    pub fn say(&self) -> String {
        match self.pinned {
            Some((load, proxy)) => {
                format!("the proxy alone on core {proxy}, load generator and upstream on core {load} (taskset)")
            }
            None => {
                "UNPINNED: one core only, or no taskset; proxy, load generator and upstream are in each other's way"
                    .into()
            }
        }
    }
}

/// The first two of a list such as `0-3,8`.
fn first_two(list: &str) -> Option<(u32, u32)> {
    let ranges = list.split(',').filter_map(|range| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        Some(low.parse::<u32>().ok()?..=high.parse::<u32>().ok()?)
    });
    let mut cores = ranges.flatten();
    Some((cores.next()?, cores.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_cores() {
        assert_eq!(first_two("0-3,8"), Some((0, 1)));
        assert_eq!(first_two("2,5-6"), Some((2, 5)));
        assert_eq!(first_two("0"), None);
        assert_eq!(first_two(""), None);
    }

    #[test]
    fn a_command_without_a_choice_is_the_program() {
        let one = Cores { all: "0".into(), pinned: None };
        assert_eq!(one.command(Place::Proxy, "x").get_program(), "x");
        let two = Cores { all: "0-1".into(), pinned: Some((0, 1)) };
        let command = two.command(Place::Proxy, "x");
        assert_eq!(command.get_program(), "taskset");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-c", "1", "x"]);
        assert_eq!(two.list(Place::All).as_deref(), Some("0-1"));
    }
}
