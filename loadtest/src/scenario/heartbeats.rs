//! Kubelets renew, some die, and a node lifecycle controller finds them: how late, and whom else.
//!
//! ```text
//!  half of the kubelets ──► target ──► apiserver ◄── the other half
//!                                         │ leases and nodes, as kube-controller-manager reads them
//!                                         ▼
//!                                     controller ──► detection delay of both halves, side by side
//! ```
//! Owns the order of a run and its faults. Both halves live through the same minutes under the same
//! controller, so what this machine adds, it adds to both.
//! Invariant: a live node behind the target that is taken for lost fails the run, and so does a
//! death that is found later than any control plane without a proxy may find it.

mod arguments;
mod bounds;
mod judgement;
mod nodes;
mod renewals;

pub use arguments::{HeartbeatArguments, Moment, Share, Time};
pub(super) use renewals::run as renewals;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::outcome::{Plot, Series};
use super::run::{Cost, Run};
use super::writer::TIMEOUT;
use super::{Administrator, Outcome, Progress};
use crate::heartbeats::{Controller, Journal, Kubelets, KubeletsOptions, Loss};
use crate::kubelet::client::{Call, Endpoint};
use crate::kubelet::lease::USUAL_DURATION;
use bounds::Bounds;
use judgement::Half;

/// Until every kubelet holds its lease.
const START_MAX: Duration = Duration::from_secs(120);
/// The user that the proxy of the example configuration is.
const PROXY: &str = "watershed";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Intervals after the start in which a proxy learns how often a node renews.
const LEARNING: u32 = 3;
/// Passes of the controller after which nothing more is found.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let bounds = Bounds::new(&run.arguments.heartbeats, USUAL_DURATION);
    let count = run.arguments.connections.unwrap_or(500);
    let duration = run.seconds((3 * bounds.flush().as_secs()).max(60));
    note(&mut run, count, duration, &bounds);
    let mut scene = Scene::open(&run, count, &bounds).await?;
    scene.settle(&run).await?;
    sleep(bounds.interval * LEARNING).await;
    let start = Instant::now();
    let mark = run.mark();
    let (rates, cost) = scene.live(&run, start, duration, mark).await?;
    scene.find_the_dead(&run, &bounds).await;
    let Scene {
        halves,
        journal,
        controller,
        ..
    } = scene;
    run.outcome.verdict.passed = true;
    judgement::judge(&mut run, &halves, &journal, &controller, (&bounds, start));
    run.add_cost("while kubelets renewed and died", &cost);
    run.add_floor().await?;
    run.outcome.plots.push(rates);
    for half in halves {
        half.kubelets.stop().await;
    }
    Ok(run.outcome)
}

fn note(run: &mut Run, count: usize, duration: Duration, bounds: &Bounds) {
    let own = run.arguments.heartbeats.clone();
    run.note("kubelets", count);
    run.note("encoding", format!("{:?}", run.arguments.encoding));
    run.note("seconds in which kubelets die", duration.as_secs());
    run.note("grace period", format!("{:?}", bounds.grace));
    let (losses, spread) = (bounds.losses, bounds.spread);
    let peers = if bounds.peers { "peers" } else { "no peers" };
    let told = format!("{losses} losses tolerated, {spread:?} spread, {peers}");
    run.note("the target is told", told);
    if let Some(share) = own.lose {
        run.note("renewals lost", format!("{} %", share.0 * 100.0));
    }
    if let Some(cut) = own.cut {
        let how = if own.silent { ", silently" } else { "" };
        let cut = cut.what.0;
        run.note("upstream cut", format!("for {cut:?}{how}"));
    }
    if !own.kill.is_empty() {
        run.note("replicas killed", own.kill.len());
    }
}

/// Everybody who takes part.
struct Scene {
    halves: Vec<Half>,
    journal: Arc<Journal>,
    controller: Arc<Controller>,
    _watching: AbortOnDropHandle<()>,
    seed: fastrand::Rng,
}

impl Scene {
    async fn open(run: &Run, count: usize, bounds: &Bounds) -> Result<Self> {
        let names = nodes::names(count);
        let owners = nodes::create(run, &names).await?;
        let journal = Arc::new(Journal::new(owners));
        let controller = Arc::new(Controller::new(bounds.grace, Arc::clone(&journal)));
        let apiserver = run.target.apiserver.clone();
        let apiserver = apiserver.unwrap_or_else(|| run.target.url.clone());
        let reader = Administrator::at(&run.target, &apiserver)?;
        let watching = Arc::clone(&controller);
        let watching = tokio::spawn(async move { watching.run(reader.client()).await });
        let (odd, even) = names
            .into_iter()
            .enumerate()
            .partition(|(at, _)| at % 2 == 1);
        let strip = |names: Vec<(usize, String)>| names.into_iter().map(|(_, name)| name);
        let (even, odd) = (strip(even), strip(odd));
        let options = |endpoints: Vec<Endpoint>, share: f64| KubeletsOptions {
            endpoints,
            pki: Arc::clone(&run.target.pki),
            duration_seconds: USUAL_DURATION,
            encoding: run.arguments.encoding,
            query: "",
            loss: Loss { share },
            handshakes: run.arguments.handshakes,
        };
        let share = run.arguments.heartbeats.lose.map_or(0.0, |share| share.0);
        let target = options(run.target.endpoints()?, share);
        let mut halves = Vec::new();
        if run.target.apiserver.is_some() {
            let native = options(vec![Endpoint::new(&apiserver, run.target.pki.ca())?], 0.0);
            for (name, options, names) in [
                ("through the target", &target, even.collect()),
                ("natively", &native, odd.collect()),
            ] {
                let kubelets = Kubelets::start(options, names, &journal)?;
                halves.push(Half { name, kubelets });
            }
        } else {
            let kubelets = Kubelets::start(&target, even.chain(odd).collect(), &journal)?;
            let name = "through the target";
            halves.push(Half { name, kubelets });
        }
        Ok(Self {
            halves,
            journal,
            controller,
            _watching: AbortOnDropHandle::new(watching),
            seed: fastrand::Rng::with_seed(run.arguments.seed),
        })
    }

    /// Waits until everybody holds a lease.
    async fn settle(&self, run: &Run) -> Result<()> {
        let all: usize = self
            .halves
            .iter()
            .map(|half| half.kubelets.names().len())
            .sum();
        let mut progress = Progress::new("leases held", all);
        let started = Instant::now();
        loop {
            let holding: usize = self.halves.iter().map(|half| half.kubelets.holding()).sum();
            progress.at(holding);
            if holding == all {
                progress.done();
                return Ok(());
            }
            let errors = self.journal.errors.lines().join("; ");
            ensure!(
                started.elapsed() < START_MAX && !run.stop.is_cancelled(),
                "{holding} of {all} leases are held: {errors}"
            );
            sleep(LOOK).await;
        }
    }

    /// Lets kubelets die and faults happen; rates by the second, and what the process took.
    async fn live(
        &mut self,
        run: &Run,
        start: Instant,
        duration: Duration,
        mark: super::run::Mark,
    ) -> Result<(Plot, Cost)> {
        let deaths = self.deaths(run, start, duration);
        let halves = &self.halves;
        let dying = async {
            for (at, half, kubelet) in deaths {
                sleep_until(at).await;
                halves[half].kubelets.kill(kubelet);
            }
            Ok(())
        };
        let counting = async {
            let rates = self.rates(run, start, duration).await;
            (rates, run.since(&mark))
        };
        let (counted, (), ()) = tokio::try_join!(
            async { Ok(counting.await) },
            async {
                tokio::select! {
                    died = dying => died,
                    () = run.stop.cancelled() => Ok(()),
                }
            },
            faults(run, start, duration),
        )?;
        Ok(counted)
    }

    /// Who dies when: a share of each half, at random times.
    fn deaths(
        &mut self,
        run: &Run,
        start: Instant,
        duration: Duration,
    ) -> Vec<(Instant, usize, usize)> {
        let share = run.arguments.heartbeats.deaths.map_or(0.4, |share| share.0);
        let mut deaths = Vec::new();
        for (at, half) in self.halves.iter().enumerate() {
            let count = half.kubelets.names().len();
            let dying = (count as f64 * share).round() as usize;
            let mut all: Vec<_> = (0..count).collect();
            self.seed.shuffle(&mut all);
            for kubelet in all.into_iter().take(dying) {
                deaths.push((start + duration.mul_f64(self.seed.f64()), at, kubelet));
            }
        }
        deaths.sort();
        deaths
    }

    /// Renewals and writes of those behind the target, second by second.
    async fn rates(&self, run: &Run, start: Instant, duration: Duration) -> Plot {
        let kubelets = &self.halves[0].kubelets;
        let count = || {
            let written = self
                .journal
                .lives(kubelets.names(), |life| life.written.len());
            let renewed = kubelets.counts().renewed.load(Ordering::Relaxed);
            (renewed as f64, written.sum::<usize>() as f64)
        };
        let mut progress = Progress::new("seconds", duration.as_secs() as usize);
        let (mut renewed, mut written) = (Vec::new(), Vec::new());
        let mut last = count();
        while start.elapsed() < duration && !run.stop.is_cancelled() {
            sleep(LOOK).await;
            let (at, now) = (start.elapsed().as_secs_f64(), count());
            renewed.push((at, now.0 - last.0));
            written.push((at, now.1 - last.1));
            last = now;
            progress.at(at as usize);
        }
        progress.done();
        let series = |name: &str, points| Series {
            name: name.into(),
            points,
        };
        Plot {
            title: "Renewals and writes through the target".into(),
            x: "time (s)".into(),
            y: "per second".into(),
            log_x: false,
            series: vec![
                series("renewals acknowledged", renewed),
                series("writes in the store", written),
            ],
        }
    }

    /// Waits until all the dead were found, or will not be.
    async fn find_the_dead(&self, run: &Run, bounds: &Bounds) {
        let limit = Instant::now() + bounds.grace + PATIENCE;
        let missing = |half: &Half| {
            let is_missing =
                |life: &crate::heartbeats::Life| life.died.is_some() && life.found.is_none();
            let lives = self.journal.lives(half.kubelets.names(), is_missing);
            lives.filter(|is_missing| *is_missing).count()
        };
        let all: usize = self.halves.iter().map(missing).sum();
        let mut progress = Progress::new("dead found", all);
        while Instant::now() < limit && !run.stop.is_cancelled() {
            let left: usize = self.halves.iter().map(missing).sum();
            progress.at(all - left);
            if left == 0 {
                break;
            }
            sleep(LOOK).await;
        }
        progress.done();
    }
}

/// Cuts the proxies off and kills replicas, each at its time.
async fn faults(run: &Run, start: Instant, duration: Duration) -> Result<()> {
    let own = &run.arguments.heartbeats;
    let when = |at: Option<Duration>| start + at.unwrap_or(duration / 3);
    let cutting = async {
        let Some(cut) = own.cut else {
            return Ok(());
        };
        sleep_until(when(cut.at)).await;
        let (seconds, silent) = (cut.what.0.as_secs(), own.silent);
        let path = format!("/debug/cut?user={PROXY}&seconds={seconds}&silent={silent}");
        let call = Call::read(path).json();
        let answer = run.admin.client().call(&call, TIMEOUT).await;
        let status = answer.context("cut the proxies off")?.status;
        let embedded = "--cut needs --apiserver, an embedded one";
        ensure!(status == StatusCode::OK, "{embedded}: it answers {status}");
        Ok(())
    };
    let killing = async {
        let mut kills: Vec<_> = own
            .kill
            .iter()
            .map(|kill| (when(kill.at), kill.what))
            .collect();
        kills.sort();
        for (at, pid) in kills {
            sleep_until(at).await;
            let process = Pid::from_raw(pid).context("a process has a positive number")?;
            kill_process(process, Signal::KILL).with_context(|| format!("kill {pid}"))?;
        }
        Ok(())
    };
    tokio::try_join!(cutting, killing).map(|((), ())| ())
}
