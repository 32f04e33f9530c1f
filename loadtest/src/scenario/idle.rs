//! Memory at several numbers of connections, and of watches: the slopes, without what the server
//! needs anyway.

use std::time::Duration;

use anyhow::Result;

use super::Outcome;
use super::engine::{Engine, population};
use super::outcome::{Plot, Series, Unit};
use super::run::Run;
use crate::watchers::Plan;

/// Parts of the connections, in fifteenths, at which memory is taken.
const STEPS: [usize; 4] = [2, 6, 10, 15];
/// Parts in which the second half of the watches is opened.
const PARTS: usize = 5;
/// How long an allocator may take to give back what the start needed.
const REST: u64 = 15;

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let connections = run.arguments.connections.unwrap_or(15_000);
    let watches = run.arguments.watches.unwrap_or(10);
    let rest = run.seconds(REST);
    run.note("watches per connection", watches);
    run.note("seconds of rest before each sample", rest.as_secs());
    population(&run)
        .cluster(connections, 2 * watches, (0, 0))
        .await?;
    let mut engine = Engine::new(run, Plan::Kubelet, connections, Vec::new()).await?;
    let mut points = Vec::new();
    for step in STEPS {
        let count = (connections * step / STEPS[STEPS.len() - 1]).max(1);
        engine.grow(count, watches).await?;
        engine.rest(rest).await;
        points.extend(engine.memory().map(|memory| (count as f64, memory)));
    }
    // In parts: a server that reviews each watch refuses those that would wait for too many others.
    for part in 1..=PARTS {
        let more = watches * part / PARTS;
        engine.grow(connections, watches + more).await?;
    }
    let cost = engine.rest(rest.max(Duration::from_secs(5))).await;
    let doubled = engine.memory();
    let outcome = &mut engine.run.outcome;
    if let Some(slope) = slope(&points) {
        let from = "slope of resident memory from the fewest to the most connections";
        let name = format!("memory per connection with {watches} idle watches");
        outcome.derive(&name, slope, Unit::Bytes, from);
    }
    if let Some(((_, single), doubled)) = points.last().zip(doubled) {
        let each = (doubled - single) / (connections * watches).max(1) as f64;
        let from = "the same connections with twice as many watches";
        outcome.derive("memory per additional idle watch", each, Unit::Bytes, from);
        outcome.add("memory with twice the watches", doubled, Unit::Bytes);
    }
    for (count, memory) in &points {
        let name = format!("memory at {count} connections");
        outcome.add(&name, *memory, Unit::Bytes);
    }
    engine.run.add_cost("at rest, twice the watches", &cost);
    engine.run.outcome.plots.push(plot(&points, doubled));
    engine.finish().await
}

/// Slope of the line from the first point to the last; none for fewer than two.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let ((x, y), (end_x, end_y)) = points.first().zip(points.last())?;
    (end_x > x).then(|| (end_y - y) / (end_x - x))
}

fn plot(points: &[(f64, f64)], doubled: Option<f64>) -> Plot {
    let mib = |(x, y): &(f64, f64)| (*x, y / f64::from(1 << 20));
    let mut series = vec![Series {
        name: "idle".into(),
        points: points.iter().map(mib).collect(),
    }];
    if let Some((end, doubled)) = points.last().zip(doubled) {
        series.push(Series {
            name: "twice the watches".into(),
            points: vec![mib(end), mib(&(end.0, doubled))],
        });
    }
    Plot {
        title: "Memory over connections".into(),
        x: "connections".into(),
        y: "resident memory (MiB)".into(),
        log_x: false,
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_ignores_what_is_there_anyway() {
        let own = slope(&[(1.0, 102.0), (2.0, 104.0), (4.0, 108.0)]).unwrap();
        assert!((own - 2.0).abs() < 1e-9, "{own}");
        assert_eq!(slope(&[(1.0, 102.0)]), None);
    }
}
