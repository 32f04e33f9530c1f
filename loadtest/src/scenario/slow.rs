//! Every tenth kubelet stops reading: the others must not notice, the stalled must resume.

use std::sync::atomic::Ordering;

use anyhow::Result;

use super::Outcome;
use super::bench::Bench;
use super::outcome::Unit;
use crate::churn::Mix;
use crate::measure::LatencySummary;

pub(super) async fn run(mut bench: Bench) -> Result<Outcome> {
    bench.start_kubelets(bench.kubelets()).await?;
    let mut churn = bench.populate(Mix::ALL).await?;
    let third = bench.seconds() / 3;
    let _ = bench.stats().latency.take();
    bench.load(&mut churn, third).await;
    let calm = bench.stats().latency.take();

    let (memory, relists) = (
        bench.sample(),
        bench.stats().relists.load(Ordering::Relaxed),
    );
    bench.fleet.stall(true);
    bench.load(&mut churn, third).await;
    let stalled = bench.stats().latency.take();
    if let Some((before, after)) = memory.zip(bench.sample()) {
        let grown = after.resident as f64 - before.resident as f64;
        bench
            .outcome
            .add("memory grown while stalled", grown, Unit::Bytes);
    }
    bench.fleet.stall(false);
    bench.load(&mut churn, third).await;
    // What the stalled had to wait for is theirs, not the server's.
    let _ = bench.stats().latency.take();

    let relists = bench.stats().relists.load(Ordering::Relaxed) - relists;
    bench
        .outcome
        .add_latency("write to event, nobody stalled", &calm);
    bench
        .outcome
        .add_latency("write to event of the others", &stalled);
    bench.outcome.derive(
        "p99 with and without",
        ratio(&stalled, &calm),
        Unit::Ratio,
        "p99 over p99",
    );
    bench
        .outcome
        .add("relists of the stalled", relists as f64, Unit::Count);
    bench.settle().await?;
    bench.finish(&churn).await
}

fn ratio(stalled: &LatencySummary, calm: &LatencySummary) -> f64 {
    stalled.p99 as f64 / calm.p99.max(1) as f64
}
