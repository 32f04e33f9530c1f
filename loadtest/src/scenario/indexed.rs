//! An event to exactly one watcher, among few and among many: its cost must not follow their number.

use std::time::Duration;

use anyhow::Result;

use super::Outcome;
use super::broadcast::against_floor;
use super::engine::{Engine, Window, above_rest, add_per_event, distribution, population};
use super::outcome::{Unit, grouped};
use super::run::{Cost, Run};
use crate::watchers::Plan;

/// Idle time before each part, to know what bookmarks and timers of the watches cost.
const REST: Duration = Duration::from_secs(10);

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let connections = run.arguments.connections.unwrap_or(1_000);
    let watches = run.arguments.watches.unwrap_or(100);
    let rate = run.arguments.writes_per_second.unwrap_or(500.0);
    let duration = run.seconds(20) / 2;
    run.note("watches per connection", watches);
    run.note("seconds", 2 * duration.as_secs());
    run.note("writes per second", rate);
    let pods = population(&run).beating_pods(connections, 0).await?;
    let mut engine = Engine::new(run, Plan::Pods, connections, pods).await?;
    let mut parts = Vec::new();
    for per_connection in [1, watches] {
        let count = grouped((connections * per_connection) as f64);
        let start = engine.grow(connections, per_connection).await?;
        let name = format!("start of {count} watchers");
        let outcome = &mut engine.run.outcome;
        outcome.add(&name, start.as_secs_f64(), Unit::Seconds);
        engine.load(rate, Duration::from_secs(1)).await?; // first events allocate
        let rest = engine.rest(REST).await;
        let window = engine.load(rate, duration).await?;
        let part = format!("{count} watchers");
        engine.add_window(&part, &window);
        parts.push((part, window, rest));
    }
    let floor = engine.run.take_floor().await?;
    let outcome = &mut engine.run.outcome;
    let costs = add_costs(outcome, &parts, floor);
    outcome.plots.push(against_floor(&costs, floor));
    let summaries: Vec<_> = parts
        .iter()
        .map(|(name, window, _)| (name.as_str(), window.single.summary()))
        .collect();
    for (name, latency) in &summaries {
        outcome.add_latency(&format!("write to event, {name}"), latency);
    }
    let curves: Vec<_> = summaries.iter().map(|(name, own)| (*name, own)).collect();
    outcome.plots.push(distribution("Write to event", &curves));
    if let Some((_, latency)) = summaries.into_iter().next_back() {
        outcome.latency = latency;
    }
    engine.finish().await
}

/// A part of the run: its name, its load, its rest.
type Part = (String, Window, Cost);

/// Adds CPU per event of both parts and how they compare; the former above rest, by name.
fn add_costs<'a>(outcome: &mut Outcome, parts: &'a [Part], floor: f64) -> Vec<(&'a str, f64)> {
    let mut costs = Vec::new();
    for (name, window, rest) in parts {
        if let Some(raw) = window.cost.per(window.events) {
            let name = format!("CPU per event, {name}, with timers and bookmarks");
            outcome.derive(&name, raw, Unit::Micros, "all CPU over events");
        }
        if let Some(cost) = above_rest(window, rest) {
            add_per_event(outcome, &format!("CPU per event, {name}"), cost, floor);
            costs.push((name.as_str(), cost));
        }
    }
    let mut per_frame = Vec::new();
    for (name, window, _) in parts {
        let bookmarks = window.bookmarks as f64;
        outcome.add(&format!("bookmarks, {name}"), bookmarks, Unit::Count);
        if let Some(cost) = window.cost.per(window.events + window.bookmarks) {
            let name = format!("CPU per event or bookmark, {name}");
            outcome.derive(&name, cost, Unit::Micros, "all CPU over both");
            per_frame.push(cost);
        }
    }
    if let [few, many] = per_frame.as_slice() {
        let from = "CPU per event or bookmark, many over few watchers";
        outcome.derive(
            "many over few, with bookmarks",
            many / few,
            Unit::Ratio,
            from,
        );
    }
    if let [(_, few), (_, many)] = costs.as_slice() {
        let from = "CPU per event above rest, many over few watchers";
        outcome.derive("many over few", many / few, Unit::Ratio, from);
    }
    costs
}
