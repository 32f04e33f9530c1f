//! Memory at two numbers of kubelets: the slope, without what the server needs anyway.

use std::sync::atomic::Ordering;

use anyhow::Result;
use tokio::time::sleep;

use super::Outcome;
use super::bench::Bench;
use super::outcome::{Plot, Series, Unit};
use crate::churn::{Churn, Mix};

/// Share of the kubelets at which memory is sampled, besides all.
const STEPS: [f64; 5] = [0.2, 0.4, 0.6, 0.8, 1.0];

pub(super) async fn run(mut bench: Bench) -> Result<Outcome> {
    let mut points = Vec::new();
    let mut churn: Option<Churn> = None;
    for step in STEPS {
        let count = ((bench.kubelets() as f64 * step) as usize).max(1);
        bench.start_kubelets(count).await?;
        match &mut churn {
            Some(churn) => bench.bind_more(churn).await?,
            None => churn = Some(bench.populate(Mix::ALL).await?),
        }
        sleep(bench.seconds() / STEPS.len() as u32).await;
        let watches = bench.stats().watches.load(Ordering::Relaxed);
        if let Some(sample) = bench.sample() {
            points.push((count as f64, watches as f64, sample.resident as f64));
        }
    }
    bench.outcome.metrics.clear(); // five start times say nothing
    let slope = slope(&points.iter().map(|(x, _, y)| (*x, *y)).collect::<Vec<_>>());
    if let Some(slope) = slope {
        let from = "least squares over five numbers of kubelets, all idle";
        bench
            .outcome
            .derive("memory per kubelet", slope, Unit::Bytes, from);
        let per_watch = points
            .last()
            .map_or(1.0, |(kubelets, watches, _)| watches / kubelets);
        bench.outcome.derive(
            "memory per watch",
            slope / per_watch,
            Unit::Bytes,
            "per kubelet over its watches",
        );
    }
    bench.outcome.plots.push(Plot {
        title: "Memory over connections".into(),
        x: "kubelets".into(),
        y: "resident memory (MiB)".into(),
        log_x: false,
        series: vec![Series {
            name: "process".into(),
            points: points
                .iter()
                .map(|(x, _, y)| (*x, y / f64::from(1 << 20)))
                .collect(),
        }],
    });
    let churn = churn.expect("there is at least one step");
    bench.finish(&churn).await
}

/// Slope of the line through the points; none for fewer than two.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    (points.len() > 1 && under > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_ignores_what_is_there_anyway() {
        let slope_of_line = slope(&[(1.0, 102.0), (2.0, 104.0), (4.0, 108.0)]).unwrap();
        assert!((slope_of_line - 2.0).abs() < 1e-9, "{slope_of_line}");
        assert_eq!(slope(&[(1.0, 102.0)]), None);
    }
}
