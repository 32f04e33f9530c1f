//! Kubelets under light churn: what holding them costs.

use anyhow::Result;

use super::Outcome;
use super::bench::Bench;
use super::outcome::Unit;
use crate::churn::Mix;

pub(super) async fn run(mut bench: Bench) -> Result<Outcome> {
    let before = bench.sample();
    bench.start_kubelets(bench.kubelets()).await?;
    let mut churn = bench.populate(Mix::ALL).await?;
    bench.add_memory(before);
    let window = bench.load(&mut churn, bench.seconds()).await;
    bench.add_window(&window).await?;
    if let Some(cpu) = window.cpu {
        let per_kubelet = cpu * 1e6 / window.seconds / bench.fleet.kubelets().len().max(1) as f64;
        let from = "all CPU of the process over kubelets and seconds";
        bench.outcome.derive(
            "CPU per kubelet and second",
            per_kubelet,
            Unit::Micros,
            from,
        );
    }
    bench.finish(&churn).await
}
