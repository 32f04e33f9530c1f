//! One event to every kubelet: the cost of fan-out against the floor.

use anyhow::Result;

use super::Outcome;
use super::bench::Bench;
use super::outcome::Unit;
use crate::churn::Mix;

pub(super) async fn run(mut bench: Bench) -> Result<Outcome> {
    bench.start_kubelets(bench.kubelets()).await?;
    let mut churn = bench.populate(Mix::BROADCAST).await?;
    // Starts and pods are over; only broadcasts are to be in the figures.
    let _ = bench.stats().latency.take();
    let window = bench.load(&mut churn, bench.seconds()).await;
    bench.add_window(&window).await?;
    let offered = window.writes * bench.fleet.kubelets().len() as u64;
    bench
        .outcome
        .add("deliveries offered", offered as f64, Unit::Count);
    bench.finish(&churn).await
}
