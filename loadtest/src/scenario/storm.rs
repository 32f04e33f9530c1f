//! Every connection is cut at once, under light churn: who comes back, how, and when.
//!
//! Kubelets watch what the rules and the graph of the Node authorizer let them, and nothing else
//! does. A proxy that is told in its configuration that these authorizers are all of the control
//! plane's therefore needs no review, neither at the start nor after the cut: one in
//! [`REVIEWS_PER`] is its allowance, or the verdict is negative.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::engine::{Engine, population};
use super::outcome::{Plot, Series, Unit};
use super::run::Run;
use super::{Outcome, Progress, Upstream};
use crate::apiserver::certs::AUTHORIZERS;
use crate::measure::prometheus::Metrics;
use crate::watchers::Plan;

/// Services and pods that are written to in turn.
const SERVICES: u32 = 1;
const PODS: usize = 64;
/// Time for everybody to come back.
const RETURN_MAX: Duration = Duration::from_secs(300);
/// Time for the memory of the start to be given back, before the cut and after it.
const REST: Duration = Duration::from_secs(15);
/// Between two samples of memory.
const SAMPLE: Duration = Duration::from_millis(50);
/// Watches for which one review may be asked, where none is needed.
const REVIEWS_PER: u64 = 1_000;
/// What kubelets watch, and so what no storm may bring to the apiserver.
const CACHED: [&str; 7] = [
    "nodes",
    "pods",
    "services",
    "configmaps",
    "secrets",
    "csidrivers",
    "runtimeclasses",
];

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let connections = run.arguments.connections.unwrap_or(10_000);
    let watches = run.arguments.watches.unwrap_or(10);
    let rate = run.arguments.writes_per_second.unwrap_or(10.0);
    run.note("watches per connection", watches);
    run.note("writes per second", rate);
    run.note("TLS handshakes at one time", run.arguments.handshakes);
    let is_declared = declares_authorizers(&run.arguments.dir);
    run.note("told that Node and RBAC decide", is_declared);
    let lanes = population(&run)
        .cluster(connections, watches, (SERVICES, PODS))
        .await?;
    let mut engine = Engine::new(run, Plan::Kubelet, connections, lanes).await?;
    let before = engine.run.admin.upstream().await;
    engine.grow(connections, watches).await?;
    engine.rest(REST).await;
    let (steady, upstream) = (engine.memory(), engine.run.admin.upstream().await);
    let start = before.zip(upstream.clone());
    let decided = decisions(&engine.run).await;
    let mark = engine.run.mark();
    let storm = engine.storm(rate).await?;
    let cost = engine.run.since(&mark);
    let reached = upstream.zip(engine.run.admin.upstream().await);
    let decided = decided.zip(decisions(&engine.run).await);
    engine.catch_up().await?;
    engine.rest(REST).await;
    let after = engine.memory();
    let outcome = &mut engine.run.outcome;
    let back = storm.back.as_secs_f64();
    outcome.add("all watches back after", back, Unit::Seconds);
    let handshakes = connections as f64 / back;
    outcome.add("connections back", handshakes, Unit::PerSecond);
    if let Some(cpu) = cost.per((connections * watches) as u64) {
        let from = "CPU of the process while they came back, handshakes and events included, over \
                    the watches";
        outcome.derive("CPU per watch that came back", cpu, Unit::Micros, from);
    }
    if let Some(reached) = &reached {
        let cached = requests(reached, |verb, resource| {
            matches!(verb, "get" | "list" | "watch") && CACHED.contains(&resource)
        });
        let name = "upstream requests for cached resources";
        outcome.add(name, cached as f64, Unit::Count);
    }
    for (when, counted) in [("at the start", &start), ("after the cut", &reached)] {
        if let Some(counted) = counted {
            add_reviews(outcome, when, counted, is_declared, connections * watches);
        }
    }
    for (source, count) in decided.iter().flat_map(grown) {
        outcome.add(&format!("  decided by {source}"), count, Unit::Count);
    }
    let highest = storm.memory.iter().map(|(_, memory)| *memory);
    let peak = highest.fold(0.0, f64::max);
    if let Some(steady) = steady.filter(|_| peak > 0.0) {
        let from = "resident memory, sampled at 50 ms, over that of all connections at rest";
        outcome.derive("peak over steady memory", peak / steady, Unit::Ratio, from);
        outcome.add("steady memory", steady, Unit::Bytes);
        outcome.add("peak memory", peak, Unit::Bytes);
        outcome.add("memory after the storm", after.unwrap_or(0.0), Unit::Bytes);
    }
    outcome.plots.push(storm.plot());
    outcome.latency = storm.latency;
    engine.finish().await
}

/// Whether the proxy's configuration beside the certificates says what the embedded apiserver's
/// authorizers are.
fn declares_authorizers(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join("watershed.yaml"));
    text.is_ok_and(|text| text.lines().any(|line| line == AUTHORIZERS))
}

/// Adds the reviews that came between two counts; too many where none is needed are a finding.
fn add_reviews(
    outcome: &mut Outcome,
    when: &str,
    counted: &(Upstream, Upstream),
    is_declared: bool,
    watches: usize,
) {
    let tokens = requests(counted, |_, resource| resource == "tokenreviews");
    let accesses = requests(counted, |_, resource| resource == "subjectaccessreviews");
    let name = |what: &str| format!("{what} {when}");
    outcome.add(&name("upstream token reviews"), tokens as f64, Unit::Count);
    outcome.add(
        &name("upstream access reviews"),
        accesses as f64,
        Unit::Count,
    );
    let allowed = watches as u64 / REVIEWS_PER;
    if is_declared && tokens + accesses > allowed {
        let all = tokens + accesses;
        outcome.verdict.fail(format!(
            "{all} reviews {when} where Node and RBAC decide, and none is needed"
        ));
    }
}

/// Decisions of a proxy by who decided.
type Decisions = Vec<(String, f64)>;

/// Those so far.
async fn decisions(run: &Run) -> Option<Decisions> {
    let metrics = Metrics::fetch(run.target.admin.as_ref()?).await.ok()?;
    let samples = metrics.samples.into_iter();
    let samples = samples.filter(|sample| sample.name == "watershed_authorization_total");
    let named = samples.map(|sample| {
        let labels = sample.labels.into_iter().map(|(_, value)| value);
        (labels.collect::<Vec<_>>().join(", "), sample.value)
    });
    Some(named.collect())
}

/// What was decided between two looks.
fn grown((before, after): &(Decisions, Decisions)) -> Decisions {
    let count = |name: &str| {
        let found = before.iter().find(|(own, _)| own == name);
        found.map_or(0.0, |(_, count)| *count)
    };
    let grown = after
        .iter()
        .map(|(name, now)| (name.clone(), now - count(name)));
    grown.filter(|(_, more)| *more > 0.0).collect()
}

/// Requests that came between two counts.
fn requests((before, after): &(Upstream, Upstream), keep: fn(&str, &str) -> bool) -> u64 {
    after.count(keep).saturating_sub(before.count(keep))
}

/// A storm that is over.
struct Storm {
    back: Duration,
    /// (seconds, bytes).
    memory: Vec<(f64, f64)>,
    latency: crate::measure::LatencySummary,
}

impl Storm {
    fn plot(&self) -> Plot {
        let points = self.memory.iter();
        let points = points.map(|(at, memory)| (*at, memory / f64::from(1 << 20)));
        Plot {
            title: "Memory during the storm".into(),
            x: "time since the cut (s)".into(),
            y: "resident memory (MiB)".into(),
            log_x: false,
            series: vec![Series {
                name: "target".into(),
                points: points.collect(),
            }],
        }
    }
}

impl Engine {
    /// Cuts everything under churn and waits until all is back.
    async fn storm(&mut self, rate: f64) -> Result<Storm> {
        let (connections, wanted) = self.crew.wanted();
        let established = self.crew.take().await?.established;
        let halt = self.run.stop.child_token();
        let (writer, crew, run) = (&mut self.writer, &mut self.crew, &self.run);
        let mut memory = Vec::new();
        let storm = async {
            let _halt = halt.clone().drop_guard();
            sleep(Duration::from_secs(1)).await; // writes have begun
            let (started, mut polled) = (Instant::now(), Instant::now());
            crew.cut().await?;
            let mut progress = Progress::new("watches back", wanted as usize);
            loop {
                let at = started.elapsed();
                let resident = run.sample().map(|own| own.resident as f64);
                memory.extend(resident.map(|own| (at.as_secs_f64(), own)));
                if polled.elapsed() > 2 * SAMPLE {
                    polled = Instant::now();
                    let report = crew.report().await?;
                    progress.at(report.watches as usize);
                    // A cut is over when each has a new connection, not before the old is gone.
                    let is_redialled = report.established - established >= connections;
                    if is_redialled && report.watches >= wanted {
                        progress.done();
                        return anyhow::Ok(Some(at));
                    }
                }
                if at > RETURN_MAX || run.stop.is_cancelled() {
                    return Ok(None);
                }
                sleep(SAMPLE).await;
            }
        };
        let (back, ()) = tokio::join!(storm, writer.run(rate, &halt));
        let latency = self.crew.take().await?.single.summary();
        let back = back?;
        if back.is_none() {
            let verdict = &mut self.run.outcome.verdict;
            verdict.fail(format!("not all watches were back after {RETURN_MAX:?}"));
        }
        Ok(Storm {
            back: back.unwrap_or(RETURN_MAX),
            memory,
            latency,
        })
    }
}
