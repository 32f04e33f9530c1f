//! Connections under light churn: what holding them costs, and what latency the target adds.

use std::time::Duration;

use anyhow::Result;

use super::Outcome;
use super::engine::{Engine, control, distribution, population};
use super::outcome::Unit;
use super::run::Run;
use crate::watchers::Plan;

/// Services and pods that are written to in turn: a write in 33 is for everybody.
const SERVICES: u32 = 2;
const PODS: usize = 64;
/// Time for the memory of the start to be given back.
const REST: Duration = Duration::from_secs(5);

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let connections = run.arguments.connections.unwrap_or(1_000);
    let watches = run.arguments.watches.unwrap_or(10);
    let rate = run.arguments.writes_per_second.unwrap_or(20.0);
    let duration = run.seconds(30);
    run.note("watches per connection", watches);
    run.note("seconds", duration.as_secs());
    run.note("writes per second", rate);
    let lanes = population(&run)
        .cluster(connections, watches, (SERVICES, PODS))
        .await?;
    let before = run.sample();
    let mut direct = control(&run, PODS.min(connections), watches).await?;
    let mut engine = Engine::new(run, Plan::Kubelet, connections, lanes).await?;
    let start = engine.grow(connections, watches).await?;
    let rest = engine.rest(REST).await;
    let outcome = &mut engine.run.outcome;
    outcome.add("start of connections", start.as_secs_f64(), Unit::Seconds);
    engine.add_memory(before, connections);
    engine.load(rate, Duration::from_secs(2)).await?; // first events allocate
    if let Some(direct) = &mut direct {
        direct.take().await?;
    }
    let window = engine.load(rate, duration).await?;
    let outcome = &mut engine.run.outcome;
    let single = window.single.summary();
    outcome.add_latency("write to event of one watcher", &single);
    outcome.add_latency("write to event of all", &window.shared.summary());
    let mut curves = vec![("target", single.clone())];
    if let Some(direct) = &mut direct {
        let own = direct.take().await?.single.summary();
        outcome.add_latency("the same from the apiserver", &own);
        let from = "percentile minus percentile, the same events in the same run";
        for (name, through, own) in [("p50", single.p50, own.p50), ("p99", single.p99, own.p99)] {
            let name = format!("latency added, {name}");
            let added = through as f64 - own as f64;
            outcome.derive(&name, added, Unit::Micros, from);
        }
        curves.push(("apiserver", own));
    }
    let curves: Vec<_> = curves.iter().map(|(name, own)| (*name, own)).collect();
    let curves = distribution("Write to event of one watcher", &curves);
    outcome.plots.push(curves);
    outcome.latency = single;
    for (name, cost) in [("at rest", &rest), ("under load", &window.cost)] {
        if let Some(cores) = cost.cores() {
            let name = format!("CPU per connection and second, {name}");
            let value = cores * 1e6 / connections.max(1) as f64;
            let from = "all CPU of the process over connections and seconds";
            outcome.derive(&name, value, Unit::Micros, from);
        }
    }
    engine.add_window("under load", &window);
    engine.finish().await
}
