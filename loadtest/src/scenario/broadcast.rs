//! One event to every watcher: the cost of fan-out against the floor.

use anyhow::Result;

use super::Outcome;
use super::engine::{Engine, add_per_event, distribution, population};
use super::outcome::{Plot, Series, Unit};
use super::run::Run;
use crate::watchers::Plan;

/// Services that are written to in turn.
const LANES: u32 = 8;

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let connections = run.arguments.connections.unwrap_or(1_000);
    let rate = run.arguments.writes_per_second.unwrap_or(20.0);
    let duration = run.seconds(10);
    run.note("seconds", duration.as_secs());
    run.note("writes per second", rate);
    let lanes = population(&run).services(LANES).await?;
    let mut engine = Engine::new(run, Plan::Services, connections, lanes).await?;
    let start = engine.grow(connections, 1).await?;
    let outcome = &mut engine.run.outcome;
    outcome.add("start of watchers", start.as_secs_f64(), Unit::Seconds);
    let window = engine.load(rate, duration).await?;
    let floor = engine.run.take_floor().await?;
    if let Some(per_event) = window.cost.per(window.events) {
        let outcome = &mut engine.run.outcome;
        add_per_event(outcome, "CPU per delivered event", per_event, floor);
        outcome
            .plots
            .push(against_floor(&[("target", per_event)], floor));
    }
    let outcome = &mut engine.run.outcome;
    outcome.latency = window.shared.summary();
    let latency = outcome.latency.clone();
    outcome.add_latency("write to event", &latency);
    let curve = distribution("Write to event", &[("target", &latency)]);
    outcome.plots.push(curve);
    let offered = window.writes * connections as u64;
    outcome.add("deliveries offered", offered as f64, Unit::Count);
    outcome.add("deliveries", window.events as f64, Unit::Count);
    let per_second = offered as f64 / duration.as_secs_f64();
    outcome.add("deliveries offered per second", per_second, Unit::PerSecond);
    engine.add_window("under load", &window);
    engine.finish().await
}

/// CPU per event beside the floor, for parts in the order given.
pub(super) fn against_floor(parts: &[(&str, f64)], floor: f64) -> Plot {
    let bar = |name: &str, value: f64| Series {
        name: name.to_owned(),
        points: vec![(0.0, value)],
    };
    let floor = bar("floor: send of 1 KB", floor);
    let parts = parts.iter().map(|(name, value)| bar(name, *value));
    Plot {
        title: "CPU per event".into(),
        x: String::new(),
        y: "µs".into(),
        log_x: false,
        series: std::iter::once(floor).chain(parts).collect(),
    }
}
