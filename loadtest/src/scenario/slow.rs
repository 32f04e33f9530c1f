//! Every tenth connection stops reading: the others must not notice, the stalled must go on.

use anyhow::Result;

use super::Outcome;
use super::engine::{Engine, distribution, population};
use super::outcome::Unit;
use super::run::Run;
use crate::watchers::{Histogram, Plan};

/// Services that are written to in turn.
const LANES: u32 = 8;
/// Calm and stalled take turns so often, that both see the same machine.
const ROUNDS: u32 = 3;

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let connections = run.arguments.connections.unwrap_or(500);
    let rate = run.arguments.writes_per_second.unwrap_or(20.0);
    let duration = run.seconds(48);
    run.note("seconds", duration.as_secs());
    run.note("writes per second", rate);
    let lanes = population(&run).services(LANES).await?;
    let mut engine = Engine::new(run, Plan::Services, connections, lanes).await?;
    engine.grow(connections, 1).await?;
    engine.load(rate, duration / (4 * ROUNDS)).await?; // first events allocate
    let (mut calm, mut stalled) = (Histogram::default(), Histogram::default());
    let (mut before, mut after) = (None, None);
    for _ in 0..ROUNDS {
        calm.add(engine.load(rate, duration / (2 * ROUNDS)).await?.shared);
        before = before.or_else(|| engine.run.sample());
        engine.crew.stall(true).await?;
        let (others, memory) = engine.load_stalled(rate, duration / (2 * ROUNDS)).await?;
        stalled.add(others);
        after = memory;
        engine.crew.stall(false).await?;
        engine.catch_up().await?;
    }
    let (calm, stalled) = (calm.summary(), stalled.summary());
    let outcome = &mut engine.run.outcome;
    let from = "p99 of those who read, over their p99 while nobody is stalled";
    let ratio = stalled.p99 as f64 / calm.p99.max(1) as f64;
    outcome.derive("p99 with and without stalled", ratio, Unit::Ratio, from);
    outcome.add_latency("write to event, nobody stalled", &calm);
    outcome.add_latency("write to event of the others", &stalled);
    let curves = [("nobody stalled", &calm), ("10 % stalled", &stalled)];
    outcome.plots.push(distribution("Write to event", &curves));
    outcome.latency = stalled.clone();
    if let Some((before, after)) = before.zip(after) {
        let each = connections.div_ceil(10) as f64;
        let grown = (after.resident as f64 - before.resident as f64) / each;
        outcome.derive(
            "memory grown per stalled connection",
            grown,
            Unit::Bytes,
            "from before the first stall to the end of the last",
        );
    }
    engine.finish().await
}
