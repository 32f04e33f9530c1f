//! Many hollow kubelets: started at a pace, cut and stalled together, stopped at the end.
//!
//! Owns their tasks. Refuses to know what they are measured for.
//! Invariant: no more kubelets are in their start, and no more in a TLS handshake, than the options
//! allow: a fleet loads a server, it does not trample it unless told to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::client::Endpoint;
use super::stats::Stats;
use super::{Controls, Kubelet};
use crate::apiserver::certs::Pki;

/// Every which kubelet stalls when told to: 10 %.
const STALLED_EVERY: usize = 10;

/// How a fleet is started.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Where kubelets connect.
    pub endpoint: Endpoint,
    /// Signs their certificates.
    pub pki: Arc<Pki>,
    /// Kubelets begun per second, at most. Default 500.
    pub starts_per_second: f64,
    /// Kubelets in their start at one time; more wait. Default 64.
    pub starting_max: usize,
    /// TLS handshakes at one time, at starts and after cuts; more wait. Default 32.
    pub handshakes_max: usize,
}

impl FleetOptions {
    /// Options with defaults.
    #[must_use]
    pub fn new(endpoint: Endpoint, pki: Arc<Pki>) -> Self {
        Self {
            endpoint,
            pki,
            starts_per_second: 500.0,
            starting_max: 64,
            handshakes_max: 32,
        }
    }
}

/// Running kubelets. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    kubelets: Vec<Arc<Kubelet>>,
    tasks: JoinSet<()>,
    stats: Arc<Stats>,
    gate: Arc<Semaphore>,
    starts: Arc<Semaphore>,
    cuts: watch::Sender<u64>,
    stalls: watch::Sender<bool>,
    /// Keeps those who never stall waiting for a word that does not come.
    never: watch::Sender<bool>,
    stop: CancellationToken,
}

impl Fleet {
    /// A fleet without kubelets; it ends with `stop`.
    #[must_use]
    pub fn new(options: FleetOptions, stop: &CancellationToken) -> Self {
        Self {
            gate: Arc::new(Semaphore::new(options.handshakes_max)),
            starts: Arc::new(Semaphore::new(options.starting_max)),
            options,
            kubelets: Vec::new(),
            tasks: JoinSet::new(),
            stats: Arc::default(),
            cuts: watch::Sender::new(0),
            stalls: watch::Sender::new(false),
            never: watch::Sender::new(false),
            stop: stop.child_token(),
        }
    }

    /// Starts kubelets until there are `count`, named `node-0`, `node-1`, and so on. Tells
    /// `progress` now and then how many are ready. Ends early when the fleet is stopped.
    ///
    /// # Errors
    /// When a certificate cannot be issued.
    pub async fn grow(&mut self, count: usize, mut progress: impl FnMut(usize)) -> Result<()> {
        let period = Duration::from_secs_f64(1.0 / self.options.starts_per_second.max(0.1));
        let mut pace = interval(period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.kubelets.len() < count {
            let start = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                start = Arc::clone(&self.starts).acquire_owned() => start?,
            };
            pace.tick().await;
            self.start_one(start)?;
            progress(self.ready());
        }
        while self.ready() < count && !self.stop.is_cancelled() {
            sleep(Duration::from_millis(20)).await;
            progress(self.ready());
        }
        Ok(())
    }

    fn start_one(&mut self, start: tokio::sync::OwnedSemaphorePermit) -> Result<()> {
        let index = self.kubelets.len();
        let name = format!("node-{index}");
        let credential = self.options.pki.issue_node(&name)?;
        let gate = Arc::clone(&self.gate);
        let (client, connection) = self.options.endpoint.client(&credential, gate)?;
        let kubelet = Arc::new(Kubelet::new(name, client, Arc::clone(&self.stats), start));
        let stalls = if index.is_multiple_of(STALLED_EVERY) {
            &self.stalls
        } else {
            &self.never
        };
        let controls = Controls {
            connection,
            cuts: self.cuts.subscribe(),
            stalls: stalls.subscribe(),
            stop: self.stop.clone(),
        };
        self.tasks.spawn(Arc::clone(&kubelet).run(controls));
        self.kubelets.push(kubelet);
        Ok(())
    }

    /// Cuts every connection at once; kubelets dial again.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Stalls every tenth kubelet, or lets them go on. The stalled read nothing at all.
    pub fn stall(&self, stalled: bool) {
        self.stalls.send_replace(stalled);
    }

    /// Waits until at least `watches` are open and every kubelet is connected; false when `limit`
    /// is over first.
    pub async fn settle(&self, watches: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            let open = self.stats.watches.load(Ordering::Relaxed);
            if open >= watches && self.connected() == self.kubelets.len() {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Kubelets that finished their start.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.kubelets
            .iter()
            .filter(|kubelet| kubelet.is_ready())
            .count()
    }

    /// Kubelets with a connection now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.kubelets
            .iter()
            .filter(|kubelet| kubelet.client.is_connected())
            .count()
    }

    /// Connections established and failed so far.
    #[must_use]
    pub fn connections(&self) -> (u64, u64) {
        let counts = self
            .kubelets
            .iter()
            .map(|kubelet| kubelet.client.connections());
        counts.fold((0, 0), |(established, failed), counts| {
            let more = counts.established.load(Ordering::Relaxed);
            (
                established + more,
                failed + counts.failed.load(Ordering::Relaxed),
            )
        })
    }

    /// The kubelets.
    #[must_use]
    pub fn kubelets(&self) -> &[Arc<Kubelet>] {
        &self.kubelets
    }

    /// Names of their nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        self.kubelets
            .iter()
            .map(|kubelet| kubelet.name.clone())
            .collect()
    }

    /// Numbers of all kubelets.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Ends every kubelet and waits for it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
