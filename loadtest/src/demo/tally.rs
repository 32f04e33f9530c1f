//! The numbers of the demo, second by second.
//!
//! Owns one row per second, and sums over the show. Refuses to print.
//! Invariant: a number the servers do not tell is absent, not zero.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::churn::Shared;
use crate::kubelet::fleet::Fleet;
use crate::kubelet::stats::Stats;
use crate::measure::LatencySummary;
use crate::measure::process::Process;
use crate::measure::prometheus::Metrics;
use crate::scenario::{Administrator, Target, Upstream};

/// One second of the show.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// Kubelets ready and connected.
    pub(super) kubelets: u64,
    /// Watches that kubelets hold.
    pub(super) client_watches: u64,
    /// Watches that the apiserver serves, the proxy's own.
    pub(super) upstream_watches: Option<u64>,
    /// Writes acknowledged by the apiserver per second.
    pub(super) writes: f64,
    /// Events delivered to kubelets per second.
    pub(super) events: f64,
    /// From sending a write to its event, of this second.
    pub(super) latency: LatencySummary,
    /// Objects and history in the proxy's caches, bytes.
    pub(super) caches: Option<f64>,
    /// Resident memory of the process, bytes.
    pub(super) resident: Option<u64>,
    /// Reads (get, list, watch) that reached the apiserver per second.
    pub(super) reads: Option<f64>,
    /// Lease writes that reached the apiserver per second.
    pub(super) leases: Option<f64>,
    /// Everything else that reached the apiserver per second.
    pub(super) others: Option<f64>,
    /// Errors and broken rules so far.
    pub(super) faults: u64,
}

/// All rows, and what they are differences of.
pub(super) struct Tally {
    pub(super) target: Target,
    pub(super) stats: Arc<Stats>,
    pub(super) churn: Arc<Shared>,
    pub(super) rows: Vec<Row>,
    pub(super) seconds: f64,
    process: Process,
    last: Option<Counts>,
}

struct Counts {
    at: Instant,
    writes: u64,
    events: u64,
    upstream: Option<Upstream>,
}

impl Tally {
    pub(super) fn new(target: Target, stats: Arc<Stats>, churn: Arc<Shared>) -> Self {
        let process = Process::new(target.pid);
        Self {
            target,
            stats,
            churn,
            rows: Vec::new(),
            seconds: 0.0,
            process,
            last: None,
        }
    }

    /// The row of the time since the last one. The first is only a beginning and not kept.
    pub(super) async fn row(&mut self, fleet: &Fleet, admin: &Administrator) -> Row {
        let metrics = match &self.target.admin {
            Some(address) => Metrics::fetch(address).await.unwrap_or_default(),
            None => Metrics::default(),
        };
        let upstream = match self.target.apiserver {
            Some(_) => admin.upstream().await,
            None => None,
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = Counts {
            at: Instant::now(),
            writes: read(&self.churn.writes),
            events: read(&self.stats.events),
            upstream,
        };
        let caches = [
            "watershed_watch_cache_bytes",
            "watershed_watch_cache_history_bytes",
        ];
        let caches: Vec<f64> = caches
            .iter()
            .filter_map(|name| metrics.sum(name, &[]))
            .collect();
        let mut row = Row {
            kubelets: (fleet.ready().min(fleet.connected())) as u64,
            client_watches: read(&self.stats.watches),
            upstream_watches: counts.upstream.as_ref().map(|upstream| upstream.watches),
            caches: (!caches.is_empty()).then(|| caches.iter().sum()),
            resident: self.process.sample().map(|sample| sample.resident),
            faults: self.stats.errors.count() + self.stats.violations.count(),
            ..Row::default()
        };
        let last = self.last.replace(counts);
        if let (Some(last), Some(now)) = (last, &self.last) {
            row.latency = self.stats.latency.take_interval();
            row.difference(&last, now);
            self.rows.push(row.clone());
        }
        row
    }
}

impl Row {
    fn difference(&mut self, last: &Counts, now: &Counts) {
        let seconds = now.at.duration_since(last.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
        self.writes = rate(now.writes, last.writes);
        self.events = rate(now.events, last.events);
        let Some((last, now)) = last.upstream.as_ref().zip(now.upstream.as_ref()) else {
            return;
        };
        let between = |keep: fn(&str, &str) -> bool| rate(now.count(keep), last.count(keep));
        let (reads, leases) = (between(is_read), between(is_lease_write));
        self.reads = Some(reads);
        self.leases = Some(leases);
        self.others = Some(between(|_, _| true) - reads - leases);
    }
}

fn is_read(verb: &str, resource: &str) -> bool {
    matches!(verb, "get" | "list" | "watch") && !resource.starts_with('/')
}

fn is_lease_write(verb: &str, resource: &str) -> bool {
    resource == "leases" && !is_read(verb, resource)
}
