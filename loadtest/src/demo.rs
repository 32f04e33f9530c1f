//! The demo: hollow kubelets and churn against a proxy, a live table, a summary with a verdict.
//!
//! Owns the order of the show and what is printed. The caller owns the apiserver and the proxy;
//! the demo reaches both over the wire only.
//! Invariant: the summary is printed however the demo ends, and it says so when anything was lost,
//! doubled or reordered.

mod screen;
mod summary;
mod tally;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::churn::{Churn, ChurnOptions, Shared};
use crate::kubelet::fleet::{Fleet, FleetOptions};
use crate::measure::verdict::{Verdict, judge};
use crate::report;
use crate::scenario::{Administrator, Progress, Target, write};
use screen::Screen;
use tally::{Row, Tally};

/// Watches of a kubelet with one pod that mounts three objects.
const WATCHES_PER_KUBELET: u64 = 8;
/// Time for kubelets to open every watch.
const SETTLE: Duration = Duration::from_secs(60);
/// Time for views to agree with lists once nothing is written any more.
const AGREE: Duration = Duration::from_secs(20);
/// A write of the churn per this many kubelets and second, within the bounds below: a service
/// reaches every kubelet, so a larger fleet is written to no faster in all.
const KUBELETS_PER_WRITE: f64 = 20.0;
const WRITES_PER_SECOND: (f64, f64) = (5.0, 50.0);

/// What the demo shows.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Hollow kubelets. Default 2,000.
    pub kubelets: usize,
    /// Length of the churn after all kubelets started; `None` goes on until stopped.
    pub duration: Option<Duration>,
    /// Where to write the HTML report, if anywhere.
    pub report: Option<PathBuf>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        let duration = Some(Duration::from_secs(60));
        Self {
            kubelets: 2_000,
            duration,
            report: None,
        }
    }
}

/// How the demo ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Whether every kubelet was served without an error and nothing was lost, doubled or reordered.
    pub passed: bool,
    /// The summary as printed.
    pub text: String,
}

/// Runs the demo until its duration is over or `stop` is cancelled; prints to stdout.
///
/// # Errors
/// When the target cannot be reached at all or the report cannot be written. A failed verdict is
/// not an error: see [`Summary::passed`].
pub async fn run(options: DemoOptions, target: Target, stop: CancellationToken) -> Result<Summary> {
    let admin = Administrator::new(&target)?;
    admin.check().await?;
    // The fleet outlives `stop`, so that what it saw can be judged.
    let mut fleet = Fleet::new(fleet_options(&target)?, &CancellationToken::new());
    let started = Instant::now();
    let grown = grow(&mut fleet, options.kubelets, &stop).await?;
    let mut churn = churn(&fleet, &admin, options.kubelets);
    let ready = grown && populate(&fleet, &mut churn, &stop).await?;
    let start = started.elapsed();
    let mut tally = Tally::new(
        target,
        Arc::clone(fleet.stats()),
        Arc::clone(churn.shared()),
    );
    let mut verdict = Verdict::of(fleet.stats());
    if ready {
        show(&options, &fleet, &mut churn, &admin, (&mut tally, &stop)).await?;
        verdict = verdict_of(&fleet, &admin, churn.shared()).await?;
    }
    let outcome = summary::outcome(&tally, &fleet, verdict, start);
    let text = outcome.table();
    if let Some(path) = &options.report {
        write(path, &report::page(&outcome))?;
    }
    print(&text);
    fleet.stop().await;
    Ok(Summary {
        passed: outcome.verdict.passed,
        text,
    })
}

/// Compares every watch with fresh lists and with the writes.
async fn verdict_of(fleet: &Fleet, admin: &Administrator, churn: &Shared) -> Result<Verdict> {
    let (kubelets, client) = (fleet.kubelets(), admin.client());
    let mut verdict = judge(kubelets, fleet.stats(), client, &churn.ledger, AGREE).await?;
    for error in churn.errors.lines() {
        verdict.fail(error);
    }
    if fleet.ready() < kubelets.len() {
        let (ready, all) = (fleet.ready(), kubelets.len());
        verdict.fail(format!(
            "only {ready} of {all} kubelets were ready at the end"
        ));
    }
    Ok(verdict)
}

fn fleet_options(target: &Target) -> Result<FleetOptions> {
    Ok(FleetOptions::new(
        target.endpoint()?,
        Arc::clone(&target.pki),
    ))
}

fn churn(fleet: &Fleet, admin: &Administrator, kubelets: usize) -> Churn {
    let mut options = ChurnOptions::new(fleet.nodes());
    let (slowest, fastest) = WRITES_PER_SECOND;
    options.writes_per_second = (kubelets as f64 / KUBELETS_PER_WRITE).clamp(slowest, fastest);
    Churn::new(admin.client().clone(), options)
}

/// Starts the kubelets; false when stopped before all were ready.
async fn grow(fleet: &mut Fleet, kubelets: usize, stop: &CancellationToken) -> Result<bool> {
    let mut progress = Progress::new("kubelets ready", kubelets);
    let grown = tokio::select! {
        grown = fleet.grow(kubelets, |ready| progress.at(ready)) => grown.map(|()| true),
        () = stop.cancelled() => Ok(false),
    };
    progress.done();
    grown
}

/// Creates what is written to, binds a pod to each node and waits for the watches this makes;
/// false when stopped before.
async fn populate(fleet: &Fleet, churn: &mut Churn, stop: &CancellationToken) -> Result<bool> {
    let mut progress = Progress::new("pods bound", fleet.kubelets().len());
    let work = async {
        churn.populate().await?;
        churn.bind_agents(|bound| progress.at(bound)).await?;
        let wanted = fleet.kubelets().len() as u64 * WATCHES_PER_KUBELET;
        fleet.settle(wanted, SETTLE).await; // if not, the verdict will say so
        anyhow::Ok(())
    };
    let done = tokio::select! {
        done = work => done.map(|()| true),
        () = stop.cancelled() => Ok(false),
    };
    progress.done();
    done
}

/// Churns and shows a row each second until the time is over.
async fn show(
    options: &DemoOptions,
    fleet: &Fleet,
    churn: &mut Churn,
    admin: &Administrator,
    (tally, stop): (&mut Tally, &CancellationToken),
) -> Result<()> {
    let halt = stop.child_token();
    let mut screen = Screen::new();
    let started = Instant::now();
    // Latencies of the start are not those of the churn.
    let _ = fleet.stats().latency.take();
    tally.row(fleet, admin).await;
    let watching = async {
        let mut pace = interval(Duration::from_secs(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace.tick().await;
        while options
            .duration
            .is_none_or(|duration| started.elapsed() < duration)
        {
            tokio::select! {
                () = halt.cancelled() => break,
                _ = pace.tick() => {}
            }
            let row: Row = tally.row(fleet, admin).await;
            screen.show(&row, started.elapsed(), options.duration);
        }
        screen.done();
        halt.cancel();
    };
    tokio::join!(watching, churn.run(&halt));
    tally.seconds = started.elapsed().as_secs_f64();
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the demo's summary")]
fn print(text: &str) {
    println!("{text}");
}
