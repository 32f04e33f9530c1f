//! Every connection is cut at once, under churn: who comes back, how, and when.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::Outcome;
use super::bench::Bench;
use super::outcome::Unit;
use crate::churn::Mix;
use crate::kubelet::fleet::Fleet;

/// Cuts, spread over the run.
const CUTS: u32 = 3;
/// Time for everybody to come back.
const RETURN_MAX: Duration = Duration::from_secs(120);

pub(super) async fn run(mut bench: Bench) -> Result<Outcome> {
    bench.start_kubelets(bench.kubelets()).await?;
    let mut churn = bench.populate(Mix::ALL).await?;
    let steady = bench.sample();
    let (duration, wanted) = (bench.seconds(), bench.watches_wanted());
    let halt = bench.stop.child_token();
    let before = relists(&bench);
    let (slowest, peak) = {
        let (fleet, bench) = (&bench.fleet, &bench);
        let storm = async {
            let result = storm(fleet, duration, wanted, || {
                bench.sample().map(|s| s.resident)
            })
            .await;
            halt.cancel();
            result
        };
        tokio::join!(storm, churn.run(&halt)).0
    };
    let relists = relists(&bench).saturating_sub(before);
    match slowest {
        Some(slowest) => {
            bench.outcome.add(
                "all watches back after",
                slowest.as_secs_f64(),
                Unit::Seconds,
            );
        }
        None => bench
            .outcome
            .verdict
            .fail(format!("not all watches were back after {RETURN_MAX:?}")),
    }
    bench
        .outcome
        .add("relists after cuts", relists as f64, Unit::Count);
    if let (Some(steady), Some(peak)) = (steady, peak) {
        let ratio = peak as f64 / steady.resident as f64;
        bench.outcome.derive(
            "peak over steady memory",
            ratio,
            Unit::Ratio,
            "sampled at 50 ms",
        );
    }
    let mut failed = bench.outcome.verdict.findings.clone();
    if relists > 0 {
        failed.push(format!("{relists} watches had to list again after a cut"));
    }
    let mut outcome = bench.finish(&churn).await?;
    for finding in failed {
        outcome.verdict.fail(finding);
    }
    Ok(outcome)
}

/// Relists so far that the server is to blame for.
fn relists(bench: &Bench) -> u64 {
    let stats = bench.stats();
    let excused = stats.excused.load(Ordering::Relaxed);
    stats
        .relists
        .load(Ordering::Relaxed)
        .saturating_sub(excused)
}

/// Cuts and waits, cuts and waits; the slowest return, and the highest memory seen.
async fn storm(
    fleet: &Fleet,
    duration: Duration,
    wanted: u64,
    memory: impl Fn() -> Option<u64>,
) -> (Option<Duration>, Option<u64>) {
    let (mut slowest, mut peak) = (Some(Duration::ZERO), None);
    for _ in 0..CUTS {
        sleep(duration / (CUTS + 1)).await;
        let before = fleet.connections().0 + fleet.kubelets().len() as u64;
        let started = Instant::now();
        fleet.cut();
        let back = loop {
            peak = peak.max(memory());
            // A cut is over when each has a new connection, not before the old one is gone.
            let is_redialled = fleet.connections().0 >= before;
            if is_redialled && fleet.settle(wanted, Duration::from_millis(50)).await {
                break Some(started.elapsed());
            }
            if started.elapsed() > RETURN_MAX {
                break None;
            }
            sleep(Duration::from_millis(5)).await;
        };
        slowest = slowest.zip(back).map(|(slowest, back)| slowest.max(back));
    }
    sleep(duration / (CUTS + 1)).await;
    (slowest, peak)
}
