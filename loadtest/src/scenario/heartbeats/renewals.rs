//! Kubelets that renew forty times as often as real ones: what a renewal costs.
//!
//! ```text
//!  absorbed   ──► target, which answers
//!  forwarded  ──► target, which asks the apiserver: the same PUT with `fieldManager=kubelet`
//!  direct     ──► apiserver
//!  echoed     ──► a server that does nothing but TLS and HTTP/2: the floor of all ways
//! ```
//! Owns the ways and their turns. A lease of one second is renewed every 250 ms, and a proxy
//! that learns intervals takes many of those for one write; so nearly all renewals of the first way
//! are absorbed, over as many connections as there are kubelets, each asleep between two of them.
//! The first renewal of a node is written by any proxy, and the second tells how far apart they are;
//! both lie before the window that is measured.
//! Invariant: what was acknowledged and not written was absorbed; both are counted, the writes at
//! the apiserver, and the journal holds each write against what was sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{START_MAX, nodes};
use crate::heartbeats::echo::Echo;
use crate::heartbeats::{Controller, Journal, Kubelets, KubeletsOptions, Loss};
use crate::kubelet::client::Endpoint;
use crate::measure::process::Process;
use crate::scenario::outcome::{Plot, Series, Unit};
use crate::scenario::run::{ALL_CPU, Run};
use crate::scenario::{Administrator, Encoding, Outcome, Progress};

/// Of a lease, seconds: renewed every 250 ms.
const LEASE: u32 = 1;
/// What a proxy forwards as it is, because a kubelet never says so.
const FORWARDED: &str = "&fieldManager=kubelet";
/// Renewals of each kubelet before the window.
const WARM_UP: u64 = 6;
const LOOK: Duration = Duration::from_millis(50);
/// Absorbed of those that could be, at least. Some are written to prove that writes arrive.
const ABSORBED_MIN: f64 = 0.5;

/// A way of renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Absorbed,
    Forwarded,
    Direct,
    Echoed,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Absorbed => "absorbed",
            Self::Forwarded => "forwarded",
            Self::Direct => "direct",
            Self::Echoed => "echoed",
        }
    }

    /// Whether the run has what it takes. An echo knows one encoding.
    fn is_there(self, run: &Run) -> bool {
        match self {
            Self::Absorbed | Self::Forwarded => true,
            Self::Direct => run.target.apiserver.is_some(),
            Self::Echoed => run.arguments.encoding == Encoding::Protobuf,
        }
    }
}

/// What a way took.
struct Cost {
    renewals: u64,
    writes: u64,
    seconds: f64,
    /// CPU of the process that answered, seconds.
    cpu: Option<f64>,
}

impl Cost {
    fn per_renewal(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu * 1e6 / self.renewals.max(1) as f64)
    }
}

pub(in crate::scenario) async fn run(mut run: Run) -> Result<Outcome> {
    let count = run.arguments.connections.unwrap_or(1_000);
    let duration = run.seconds(20);
    run.note("kubelets", count);
    run.note("encoding", format!("{:?}", run.arguments.encoding));
    run.note("seconds of each way", duration.as_secs());
    run.outcome.verdict.passed = true;
    let mut costs = Vec::new();
    for way in [Way::Absorbed, Way::Forwarded, Way::Direct, Way::Echoed] {
        if way.is_there(&run) && !run.stop.is_cancelled() {
            let cost = take(&mut run, way, count, duration).await?;
            costs.push((way.name(), cost));
        }
    }
    let floor = run.add_floor().await?;
    for (name, cost) in &costs {
        tell(&mut run.outcome, name, cost, floor);
    }
    let bars = costs.iter().filter_map(|(name, cost)| {
        let points = vec![(0.0, cost.per_renewal()?)];
        let name = (*name).to_owned();
        Some(Series { name, points })
    });
    run.outcome.plots.push(Plot {
        title: "CPU per renewal".into(),
        x: String::new(),
        y: "µs".into(),
        log_x: false,
        series: bars.collect(),
    });
    let (_, absorbed) = costs
        .first()
        .context("stopped before anything was measured")?;
    let share = 1.0 - absorbed.writes as f64 / absorbed.renewals.max(1) as f64;
    if share < ABSORBED_MIN && !run.arguments.heartbeats.baseline {
        let percent = share * 100.0;
        let finding = format!("{percent:.0} % were absorbed; is heartbeats.mode Coalesce?");
        run.outcome.verdict.fail(finding);
    }
    Ok(run.outcome)
}

/// Lets kubelets renew over one way.
async fn take(run: &mut Run, way: Way, count: usize, duration: Duration) -> Result<Cost> {
    let names = nodes::names(count);
    let journal = Arc::new(Journal::new(nodes::create(run, &names).await?));
    let apiserver = run.target.apiserver.as_ref().unwrap_or(&run.target.url);
    let at = |url: &str| Endpoint::new(url, run.target.pki.ca());
    let own = &run.arguments.heartbeats;
    let mut _echo = None;
    let (endpoints, query, process) = match way {
        Way::Absorbed => (run.target.endpoints()?, "", run.target.pid),
        Way::Forwarded => (run.target.endpoints()?, FORWARDED, run.target.pid),
        Way::Direct => (vec![at(apiserver)?], "", own.apiserver_pid),
        Way::Echoed => {
            let echo = _echo.insert(Echo::start(&run.arguments.dir).await?);
            (vec![at(&echo.url)?], "", Some(echo.pid))
        }
    };
    let reader = Administrator::at(&run.target, apiserver)?;
    let watching = Controller::new(run.arguments.heartbeats.grace.0, Arc::clone(&journal));
    let watching = tokio::spawn(async move { watching.run(reader.client()).await });
    let watching = AbortOnDropHandle::new(watching);
    let options = KubeletsOptions {
        endpoints,
        pki: Arc::clone(&run.target.pki),
        duration_seconds: LEASE,
        encoding: run.arguments.encoding,
        query,
        loss: Loss::default(),
        handshakes: run.arguments.handshakes,
    };
    let kubelets = Kubelets::start(&options, names, &journal)?;
    warm_up(run, way, &kubelets, &journal).await?;
    let cost = measure(run, &kubelets, process, duration).await;
    kubelets.stop().await;
    sleep(LOOK * 4).await; // the last events
    drop(watching);
    for log in [&journal.findings, &journal.errors] {
        for line in log.lines() {
            run.outcome.verdict.fail(format!("{}: {line}", way.name()));
        }
    }
    Ok(cost)
}

/// Waits until each kubelet has renewed a few times.
async fn warm_up(run: &Run, way: Way, kubelets: &Kubelets, journal: &Journal) -> Result<()> {
    let mut progress = Progress::new(way.name(), kubelets.names().len());
    let started = Instant::now();
    loop {
        let warm = journal.lives(kubelets.names(), |life| life.acknowledged >= WARM_UP);
        let warm = warm.filter(|is_warm| *is_warm).count();
        progress.at(warm);
        if warm == kubelets.names().len() {
            progress.done();
            return Ok(());
        }
        let errors = journal.errors.lines().join("; ");
        ensure!(
            started.elapsed() < START_MAX && !run.stop.is_cancelled(),
            "{warm} kubelets renew: {errors}"
        );
        sleep(LOOK).await;
    }
}

async fn measure(run: &Run, kubelets: &Kubelets, process: Option<u32>, duration: Duration) -> Cost {
    let process = process.map(|pid| Process::new(Some(pid)));
    let sample = || process.as_ref().and_then(Process::sample);
    let renewed = || kubelets.counts().renewed.load(Ordering::Relaxed);
    let writes = async || {
        let upstream = run.admin.upstream().await.unwrap_or_default();
        upstream.count(|verb, resource| verb == "update" && resource == "leases")
    };
    let before = (writes().await, renewed(), sample());
    let started = Instant::now();
    tokio::select! {
        () = sleep(duration) => {}
        () = run.stop.cancelled() => {}
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = (sample(), renewed(), writes().await);
    let cpu = before.2.zip(after.0);
    Cost {
        renewals: after.1 - before.1,
        writes: after.2 - before.0,
        seconds,
        cpu: cpu.map(|(before, after)| after.cpu_seconds - before.cpu_seconds),
    }
}

fn tell(outcome: &mut Outcome, name: &str, cost: &Cost, floor: f64) {
    if let Some(cpu) = cost.per_renewal() {
        let from = format!("{ALL_CPU} that answers, TLS and HTTP/2 included, over renewals");
        let title = format!("CPU per renewal, {name}");
        outcome.derive(&title, cpu, Unit::Micros, &from);
        let title = format!("the same over the floor, {name}");
        outcome.derive(&title, cpu / floor, Unit::Ratio, &from);
    }
    let rate = |count: u64| count as f64 / cost.seconds;
    let title = format!("renewals, {name}");
    outcome.add(&title, rate(cost.renewals), Unit::PerSecond);
    let title = format!("lease writes at the apiserver, {name}");
    outcome.add(&title, rate(cost.writes), Unit::PerSecond);
}
