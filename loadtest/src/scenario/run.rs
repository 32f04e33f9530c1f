//! What every scenario stands on: a target, an administrator, a process under measurement.
//!
//! Owns the floor, taken before and after the load, and the cost of a window of time. Refuses to
//! put load on anything: that is the scenario's.
//! Invariant: figures of a window are taken from samples at its two ends and nothing outside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outcome::{Outcome, Unit};
use super::{Administrator, RunArguments, Target};
use crate::measure::floor::send_floor;
use crate::measure::process::{Process, Sample};

/// The floor is taken so often before the load, and as often after it.
const FLOORS: usize = 3;
/// Threads of the measured process that are told apart; those that took most.
const THREADS_TOLD: usize = 5;
/// What derives from the CPU of the process.
pub(super) const ALL_CPU: &str = "all CPU of the process";

/// A run in the making.
pub(super) struct Run {
    pub(super) arguments: RunArguments,
    pub(super) target: Target,
    /// Connected to the apiserver behind the target, or to the target where there is none behind.
    pub(super) admin: Administrator,
    pub(super) outcome: Outcome,
    pub(super) stop: CancellationToken,
    process: Option<Process>,
    floors: Vec<f64>,
}

/// The begin of a window.
#[derive(Debug)]
pub(super) struct Mark {
    at: Instant,
    sample: Option<Sample>,
    threads: BTreeMap<String, Duration>,
}

impl Mark {
    /// When it was.
    pub(super) fn at(&self) -> Instant {
        self.at
    }
}

/// What the measured process took between two points in time.
#[derive(Debug, Clone, Default)]
pub(super) struct Cost {
    /// Length of the window.
    pub(super) seconds: f64,
    /// CPU of the process, seconds; none without a process.
    pub(super) cpu: Option<f64>,
    /// The same by thread name, seconds; threads that ended meanwhile are missing.
    pub(super) threads: Vec<(String, f64)>,
}

impl Cost {
    /// CPU of the process per event, microseconds.
    pub(super) fn per(&self, events: u64) -> Option<f64> {
        (events > 0).then(|| self.cpu.map(|cpu| cpu * 1e6 / events as f64))?
    }

    /// CPU of the process over time: cores in use.
    pub(super) fn cores(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu / self.seconds.max(1e-9))
    }
}

impl Run {
    /// Connects the administrator and takes the floor.
    ///
    /// # Errors
    /// When the target does not answer.
    pub(super) async fn new(
        arguments: &RunArguments,
        target: Target,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let admin = Administrator::new(&target)?;
        admin.check().await?;
        let name = format!("{:?}", arguments.scenario).to_lowercase();
        let mut settings = vec![("target".to_owned(), arguments.target.clone())];
        settings.extend(machine());
        let mut run = Self {
            arguments: arguments.clone(),
            admin,
            outcome: Outcome::new(&name, settings),
            process: target.pid.map(|pid| Process::new(Some(pid))),
            target,
            stop: stop.clone(),
            floors: Vec::new(),
        };
        run.take_floor().await?;
        Ok(run)
    }

    /// Length of the measured part; `default` seconds unless the command line says otherwise.
    pub(super) fn seconds(&self, default: u64) -> Duration {
        Duration::from_secs(self.arguments.seconds.unwrap_or(default).max(1))
    }

    /// Notes a setting of this run.
    pub(super) fn note(&mut self, name: &str, value: impl ToString) {
        let setting = (name.to_owned(), value.to_string());
        self.outcome.settings.push(setting);
    }

    /// The measured process now.
    pub(super) fn sample(&self) -> Option<Sample> {
        self.process.as_ref()?.sample()
    }

    /// Begins a window.
    pub(super) fn mark(&self) -> Mark {
        let threads = self.process.as_ref().map(Process::threads);
        Mark {
            at: Instant::now(),
            sample: self.sample(),
            threads: threads.unwrap_or_default(),
        }
    }

    /// Ends a window.
    pub(super) fn since(&self, mark: &Mark) -> Cost {
        let after = self.mark();
        let cpu = mark.sample.zip(after.sample);
        let grown = after.threads.into_iter().map(|(name, cpu)| {
            let before = mark.threads.get(&name).copied().unwrap_or_default();
            (name, cpu.saturating_sub(before).as_secs_f64())
        });
        let mut threads: Vec<_> = grown.filter(|(_, cpu)| *cpu > 0.0).collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        Cost {
            seconds: after.at.duration_since(mark.at).as_secs_f64(),
            cpu: cpu.map(|(before, after)| after.cpu_seconds - before.cpu_seconds),
            threads,
        }
    }

    /// Takes the floor; its mean so far, microseconds.
    pub(super) async fn take_floor(&mut self) -> Result<f64> {
        for _ in 0..FLOORS {
            self.floors.push(send_floor().await?.as_secs_f64() * 1e6);
        }
        Ok(self.floors.iter().sum::<f64>() / self.floors.len() as f64)
    }

    /// Takes the floor again and adds it: its mean, lowest and highest.
    pub(super) async fn add_floor(&mut self) -> Result<f64> {
        let mean = self.take_floor().await?;
        let low = self.floors.iter().copied().fold(f64::MAX, f64::min);
        let high = self.floors.iter().copied().fold(0.0, f64::max);
        let from = format!(
            "CPU of one send of 1 KB on loopback; {low:.2} to {high:.2} µs before and after"
        );
        self.outcome.derive("floor", mean, Unit::Micros, &from);
        Ok(mean)
    }

    /// Adds what the process took in a window, by thread too.
    pub(super) fn add_cost(&mut self, what: &str, cost: &Cost) {
        let Some(cores) = cost.cores() else {
            return;
        };
        let name = format!("cores in use, {what}");
        self.outcome.add(&name, cores, Unit::Ratio);
        for (thread, cpu) in cost.threads.iter().take(THREADS_TOLD) {
            let name = format!("  thread {thread}, {what}");
            self.outcome.add(&name, cpu / cost.seconds, Unit::Ratio);
        }
    }
}

/// Machine and system, as far as they tell.
fn machine() -> Vec<(String, String)> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let machine = format!("{cores} × {model}, Linux {}", kernel.trim());
    vec![("machine".to_owned(), machine)]
}
