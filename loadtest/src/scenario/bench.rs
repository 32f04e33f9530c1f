//! What scenarios with hollow kubelets stand on: kubelets, a writer, a process under measurement.
//!
//! Owns the order of start, load and judgement. Refuses to interpret: which figures a scenario
//! shows is its own file's.
//! Invariant: figures of a window are taken from samples at its two ends and nothing outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::outcome::{Outcome, Plot, Series, Unit};
use super::run::Run;
use super::{Administrator, Progress, RunArguments};
use crate::churn::{Churn, ChurnOptions, Mix};
use crate::kubelet::fleet::{Fleet, FleetOptions};
use crate::kubelet::stats::Stats;
use crate::measure::floor::send_floor;
use crate::measure::process::{Process, Sample};
use crate::measure::verdict::judge;

/// Time for kubelets to open every watch, and for views to agree with lists.
const SETTLE: Duration = Duration::from_secs(60);
/// Watches of a kubelet with one pod that mounts three objects.
pub(super) const WATCHES_PER_KUBELET: u64 = 8;

/// A run with hollow kubelets.
pub(super) struct Bench {
    pub(super) arguments: RunArguments,
    pub(super) admin: Administrator,
    pub(super) fleet: Fleet,
    pub(super) outcome: Outcome,
    process: Option<Process>,
    pub(super) stop: CancellationToken,
}

/// What happened between two points in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) seconds: f64,
    pub(super) events: u64,
    pub(super) writes: u64,
    /// CPU of the measured process, seconds.
    pub(super) cpu: Option<f64>,
}

impl Bench {
    pub(super) fn new(run: Run) -> Result<Self> {
        let Run {
            arguments,
            target,
            admin,
            outcome,
            stop,
            ..
        } = run;
        let mut options = FleetOptions::new(target.endpoint()?, Arc::clone(&target.pki));
        options.starts_per_second = arguments.starts_per_second;
        options.handshakes_max = arguments.handshakes;
        let mut bench = Self {
            admin,
            // The fleet outlives `stop`, so that what it saw can be judged.
            fleet: Fleet::new(options, &CancellationToken::new()),
            outcome,
            process: target.pid.map(|pid| Process::new(Some(pid))),
            arguments,
            stop,
        };
        let settings = [
            ("kubelets", bench.kubelets().to_string()),
            ("seconds", bench.seconds().as_secs().to_string()),
            ("writes per second", bench.writes_per_second().to_string()),
            ("seed", bench.arguments.seed.to_string()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        bench.outcome.settings.extend(settings);
        Ok(bench)
    }

    pub(super) fn kubelets(&self) -> usize {
        self.arguments.connections.unwrap_or(100)
    }

    fn writes_per_second(&self) -> f64 {
        self.arguments.writes_per_second.unwrap_or(20.0)
    }

    /// The measured process now.
    pub(super) fn sample(&self) -> Option<Sample> {
        self.process.as_ref()?.sample()
    }

    pub(super) fn stats(&self) -> &Arc<Stats> {
        self.fleet.stats()
    }

    pub(super) fn seconds(&self) -> Duration {
        Duration::from_secs(self.arguments.seconds.unwrap_or(30))
    }

    /// Starts kubelets until there are `count`.
    pub(super) async fn start_kubelets(&mut self, count: usize) -> Result<()> {
        self.admin.check().await?;
        let started = Instant::now();
        let mut progress = Progress::new("kubelets ready", count);
        tokio::select! {
            grown = self.fleet.grow(count, |ready| progress.at(ready)) => grown?,
            () = self.stop.cancelled() => bail!("stopped before all kubelets were ready"),
        }
        progress.done();
        self.outcome.add(
            "start of kubelets",
            started.elapsed().as_secs_f64(),
            Unit::Seconds,
        );
        Ok(())
    }

    /// Creates what is written to and one pod on each node, and waits for the watches this makes.
    pub(super) async fn populate(&mut self, mix: Mix) -> Result<Churn> {
        let mut options = ChurnOptions::new(self.fleet.nodes());
        options.writes_per_second = self.writes_per_second();
        options.seed = self.arguments.seed;
        options.mix = mix;
        let mut churn = Churn::new(self.admin.client().clone(), options);
        churn.populate().await?;
        let mut progress = Progress::new("pods bound", self.fleet.kubelets().len());
        churn.bind_agents(|bound| progress.at(bound)).await?;
        progress.done();
        self.settle().await?;
        Ok(churn)
    }

    /// Waits until every kubelet has all its watches.
    pub(super) async fn settle(&self) -> Result<()> {
        let wanted = self.watches_wanted();
        let settled = self.fleet.settle(wanted, SETTLE).await;
        let open = self.stats().watches.load(Ordering::Relaxed);
        let errors = self.stats().errors.lines().join("; ");
        ensure!(
            settled,
            "only {open} of {wanted} watches were open after {SETTLE:?}: {errors}"
        );
        Ok(())
    }

    pub(super) fn watches_wanted(&self) -> u64 {
        self.fleet.kubelets().len() as u64 * WATCHES_PER_KUBELET
    }

    /// Lets the churn write for a while, and measures.
    pub(super) async fn load(&mut self, churn: &mut Churn, duration: Duration) -> Window {
        let halt = self.stop.child_token();
        let shared = Arc::clone(churn.shared());
        let (events, writes) = (self.events(), shared.writes.load(Ordering::Relaxed));
        let (before, started) = (self.sample(), Instant::now());
        let watching = self.watch(duration, &halt, &shared.writes);
        let (plot, ()) = tokio::join!(watching, churn.run(&halt));
        let after = self.sample();
        self.outcome.plots.extend(plot);
        let cpu = before
            .zip(after)
            .map(|(before, after)| after.cpu_seconds - before.cpu_seconds);
        Window {
            seconds: started.elapsed().as_secs_f64(),
            events: self.events() - events,
            writes: shared.writes.load(Ordering::Relaxed) - writes,
            cpu,
        }
    }

    /// Samples once a second until the time is over, then halts the churn.
    async fn watch(
        &self,
        duration: Duration,
        halt: &CancellationToken,
        writes: &AtomicU64,
    ) -> [Plot; 1] {
        let mut progress = Progress::new("seconds of load", duration.as_secs() as usize);
        let mut pace = interval(Duration::from_secs(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = Instant::now();
        let (mut events, mut written) = (self.events(), writes.load(Ordering::Relaxed));
        let (mut delivered, mut sent, mut last) = (Vec::new(), Vec::new(), 0.0);
        pace.tick().await;
        while started.elapsed() < duration && !halt.is_cancelled() {
            pace.tick().await;
            let at = started.elapsed().as_secs_f64();
            let (more, wrote) = (self.events(), writes.load(Ordering::Relaxed));
            delivered.push((at, (more - events) as f64 / (at - last)));
            sent.push((at, (wrote - written) as f64 / (at - last)));
            (events, written, last) = (more, wrote, at);
            progress.at(at as usize);
        }
        halt.cancel();
        progress.done();
        let series = |name: &str, points| Series {
            name: name.into(),
            points,
        };
        [Plot {
            title: "Rates".into(),
            x: "time (s)".into(),
            y: "per second".into(),
            log_x: false,
            series: vec![
                series("events delivered", delivered),
                series("writes", sent),
            ],
        }]
    }

    pub(super) fn events(&self) -> u64 {
        self.stats().events.load(Ordering::Relaxed)
    }

    /// Adds rates of a window, and CPU per event against the floor.
    pub(super) async fn add_window(&mut self, window: &Window) -> Result<()> {
        let outcome = &mut self.outcome;
        outcome.add(
            "writes",
            window.writes as f64 / window.seconds,
            Unit::PerSecond,
        );
        outcome.add(
            "events delivered",
            window.events as f64 / window.seconds,
            Unit::PerSecond,
        );
        let floor = send_floor().await?.as_secs_f64() * 1e6;
        outcome.add("floor: one send of 1 KB", floor, Unit::Micros);
        let Some(cpu) = window.cpu else {
            return Ok(());
        };
        outcome.add("CPU of the process", cpu / window.seconds, Unit::Ratio);
        if window.events > 0 {
            let per_event = cpu * 1e6 / window.events as f64;
            let from = "all CPU of the process over delivered events";
            outcome.derive("CPU per delivered event", per_event, Unit::Micros, from);
            outcome.derive(
                "the same over the floor",
                per_event / floor,
                Unit::Ratio,
                from,
            );
        }
        Ok(())
    }

    /// Judges, adds what the kubelets counted, and ends them.
    pub(super) async fn finish(mut self, churn: &Churn) -> Result<Outcome> {
        let stats = Arc::clone(self.stats());
        let shared = churn.shared();
        let kubelets = self.fleet.kubelets();
        let verdict = judge(
            kubelets,
            &stats,
            self.admin.client(),
            &shared.ledger,
            SETTLE,
        )
        .await?;
        self.outcome.verdict = verdict;
        for error in shared.errors.lines() {
            self.outcome.verdict.fail(error);
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let (established, failed) = self.fleet.connections();
        let outcome = &mut self.outcome;
        outcome.set_latency(stats.latency.summary());
        outcome.add_latency("unary request", &stats.call_latency.summary());
        outcome.add_latency("write", &shared.latency.summary());
        outcome.add("watches", count(&stats.watches), Unit::Count);
        outcome.add("bookmarks", count(&stats.bookmarks), Unit::Count);
        outcome.add("lease renewals", count(&stats.renewals), Unit::Count);
        outcome.add("pods started", count(&stats.pods_started), Unit::Count);
        outcome.add("watches resumed", count(&stats.resumes), Unit::Count);
        outcome.add("relists", count(&stats.relists), Unit::Count);
        outcome.add("connections established", established as f64, Unit::Count);
        outcome.add("connections failed", failed as f64, Unit::Count);
        outcome.add("writes behind their time", count(&shared.late), Unit::Count);
        self.fleet.stop().await;
        Ok(self.outcome)
    }
}
