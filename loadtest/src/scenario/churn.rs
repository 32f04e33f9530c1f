//! Every kind of write, at the given rate.

use anyhow::Result;

use super::Outcome;
use super::bench::Bench;
use super::outcome::Unit;
use crate::churn::Mix;

pub(super) async fn run(mut bench: Bench) -> Result<Outcome> {
    bench.start_kubelets(bench.kubelets()).await?;
    let mut churn = bench.populate(Mix::ALL).await?;
    let window = bench.load(&mut churn, bench.seconds()).await;
    bench.add_window(&window).await?;
    for (resource, writes) in churn.shared().ledger.counts() {
        let name = format!("writes to {resource}");
        bench.outcome.add(&name, writes as f64, Unit::Count);
    }
    bench.finish(&churn).await
}
