//! Hollow kubelets: what a node sends and watches, without a node.
//!
//! ```text
//!            ┌ connection   dial, TLS, HTTP/2, redial (client)
//!            ├ duties       CSINode, Node, status every 5 min, Lease every 10 s
//!  one task ─┼ watches      own node, services, CSI drivers, runtime classes; then own pods;
//!            │              then every ConfigMap and Secret that a pod mounts
//!            └ pods         GET and status PATCH of each pod bound here; DELETE when asked to go
//! ```
//! Owns the behaviour of a kubelet 1.36 on the wire: requests, headers, encodings, order, retries.
//! Refuses containers and everything else behind the wire. All of a kubelet runs in one task, so
//! that thousands cost what their connections cost.
//! Invariant: a kubelet never acts on its own view only: every watch is checked for lost, doubled
//! and reordered events, and can be compared with a fresh list.

pub mod client;
pub mod decode;
mod duties;
pub(crate) mod encode;
pub mod fleet;
pub(crate) mod lease;
mod pods;
pub(crate) mod protobuf;
pub mod reflector;
pub mod stats;
pub mod view;
mod watches;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use client::{Answer, Call, CallError, Client, Connection};
use reflector::Subject;
use stats::Stats;
use view::View;

/// Watch time-outs of a kubelet's informers, seconds.
const INFORMER_TIMEOUTS: RangeInclusive<u64> = 300..=600;
/// Watch time-outs of mounted ConfigMaps and Secrets, seconds.
const MOUNT_TIMEOUTS: RangeInclusive<u64> = 1800..=3600;
/// Deadline of lease and node status calls, retries included.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Deadline of other calls; a kubelet has none, but waits no longer than the apiserver does.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Watches asked for and not yet started; a pod worker that is ahead waits.
const COMMANDS_MAX: usize = 64;
/// Steps until a kubelet counts as ready: registered, lease held, five watches in sync.
const STEPS: u32 = 7;

/// A hollow kubelet, shared by its futures and by whoever judges it.
#[derive(Debug)]
pub struct Kubelet {
    name: String,
    client: Client,
    stats: Arc<Stats>,
    views: Mutex<BTreeMap<Subject, Arc<Mutex<View>>>>,
    steps_left: AtomicU32,
    start: Mutex<Option<OwnedSemaphorePermit>>,
    /// UID of the Node once it is registered.
    node: watch::Sender<Option<String>>,
    node_synced: watch::Sender<bool>,
}

/// What starts and ends a kubelet.
#[derive(Debug)]
struct Controls {
    connection: Connection,
    cuts: watch::Receiver<u64>,
    /// While true the kubelet stands still: it reads nothing, and TCP pushes back.
    stalls: watch::Receiver<bool>,
    stop: CancellationToken,
}

impl Kubelet {
    fn new(name: String, client: Client, stats: Arc<Stats>, start: OwnedSemaphorePermit) -> Self {
        Self {
            name,
            client,
            stats,
            views: Mutex::default(),
            steps_left: AtomicU32::new(STEPS),
            start: Mutex::new(Some(start)),
            node: watch::Sender::new(None),
            node_synced: watch::Sender::new(false),
        }
    }

    /// Name of its Node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its connection, for requests under its identity.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it watches now, and what it saw.
    #[must_use]
    pub fn views(&self) -> Vec<(Subject, Arc<Mutex<View>>)> {
        let views = self.views.lock();
        views
            .iter()
            .map(|(subject, view)| (subject.clone(), Arc::clone(view)))
            .collect()
    }

    /// Whether it has been registered, holds a lease, and its five first watches are in sync.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.steps_left.load(Ordering::Relaxed) == 0
    }

    async fn run(self: Arc<Self>, mut controls: Controls) {
        let (commands, mut asked) = mpsc::channel(COMMANDS_MAX);
        let mut tasks: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        tasks.push(Box::pin(controls.connection.run(controls.cuts)));
        tasks.push(Box::pin(duties::node(Arc::clone(&self))));
        tasks.push(Box::pin(duties::lease(Arc::clone(&self))));
        for subject in watches::informers(&self.name) {
            let watch = watches::informer(Arc::clone(&self), subject, None);
            tasks.push(Box::pin(watch));
        }
        let (news, told) = mpsc::channel(COMMANDS_MAX);
        tasks.push(Box::pin(watches::own_pods(Arc::clone(&self), news)));
        tasks.push(Box::pin(pods::run(Arc::clone(&self), told, commands)));
        loop {
            if *controls.stalls.borrow_and_update() {
                tokio::select! {
                    () = controls.stop.cancelled() => return,
                    changed = controls.stalls.changed() => if changed.is_err() { return },
                }
                continue;
            }
            tokio::select! {
                () = controls.stop.cancelled() => return,
                changed = controls.stalls.changed() => if changed.is_err() { return },
                Some((subject, stop)) = asked.recv() => {
                    tasks.push(Box::pin(watches::mounted(Arc::clone(&self), subject, stop)));
                }
                Some(()) = tasks.next() => {}
            }
        }
    }

    /// One step of the start is done; the last one counts the kubelet as ready.
    fn step(&self) {
        if self.steps_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.stats.ready.fetch_add(1, Ordering::Relaxed);
            self.start.lock().take();
        }
    }

    /// Sends a unary request; waits and retries where the answer carries `Retry-After`.
    async fn call(&self, call: &Call, limit: Duration) -> Result<Answer, CallError> {
        let started = Instant::now();
        self.stats.calls.fetch_add(1, Ordering::Relaxed);
        match self.client.call_patiently(call, limit).await {
            Ok(answer) => {
                self.stats.call_latency.record(started.elapsed());
                Ok(answer)
            }
            Err(error) => {
                self.stats.calls_lost.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Notes an answer that a healthy server would not give.
    fn unexpected(&self, what: &str, answer: &Answer) {
        let text = decode::unwrap(&answer.body).and_then(decode::Status::decode);
        let text = text.map_or_else(
            |_| String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned(),
            |status| status.message,
        );
        self.stats
            .errors
            .add(format!("{}: {what}: {} {text}", self.name, answer.status));
    }
}

#[cfg(test)]
mod tests;
