//! Memory and CPU of a process, from `/proc`.
//!
//! Owns the reading of `/proc/PID/status`, `stat` and `task/*/stat`. Refuses other systems than
//! Linux: elsewhere samples are absent, and so are the figures made of them.
//! Invariant: a sample that cannot be read is `None`, never zero.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Clock ticks per second in `/proc/PID/stat`: fixed at 100 towards user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is measured.
#[derive(Debug, Clone)]
pub struct Process {
    folder: PathBuf,
}

/// A process at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Resident memory, bytes.
    pub resident: u64,
    /// CPU used so far, seconds in user and kernel mode.
    pub cpu_seconds: f64,
}

impl Process {
    /// The process with that id; `None` is this one.
    #[must_use]
    pub fn new(pid: Option<u32>) -> Self {
        let pid = pid.unwrap_or_else(std::process::id);
        Self {
            folder: PathBuf::from(format!("/proc/{pid}")),
        }
    }

    /// Memory and CPU now; `None` when the process is gone or the system has no `/proc`.
    #[must_use]
    pub fn sample(&self) -> Option<Sample> {
        let status = std::fs::read_to_string(self.folder.join("status")).ok()?;
        let stat = std::fs::read_to_string(self.folder.join("stat")).ok()?;
        let (_, cpu) = parse_stat(&stat)?;
        Some(Sample {
            resident: resident(&status)?,
            cpu_seconds: cpu.as_secs_f64(),
        })
    }

    /// CPU used so far by the threads alive, summed by thread name.
    #[must_use]
    pub fn threads(&self) -> BTreeMap<String, Duration> {
        let mut threads = BTreeMap::new();
        let Ok(tasks) = std::fs::read_dir(self.folder.join("task")) else {
            return threads;
        };
        for task in tasks.flatten() {
            let stat = std::fs::read_to_string(task.path().join("stat"));
            if let Some((name, cpu)) = stat.ok().as_deref().and_then(parse_stat) {
                *threads.entry(name.to_owned()).or_default() += cpu;
            }
        }
        threads
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Name and CPU. The name may hold anything, so fields are counted from its closing parenthesis.
fn parse_stat(stat: &str) -> Option<(&str, Duration)> {
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_ascii_whitespace().skip(11); // utime is field 14, the state field 3
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((
        name,
        Duration::from_secs_f64((user + system) / TICKS_PER_SECOND),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_name_may_hold_spaces_and_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 5 6 20 0 9 0 99 1 2";
        assert_eq!(parse_stat(stat), Some(("a) b (c)", Duration::from_secs(2))));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(
            resident("VmPeak:\t 9 kB\nVmRSS:\t    12 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
