//! What operators see of absorption: counters as it happens, gauges when metrics are scraped.
//!
//! Owns: the families, none of them labelled by node. Refuses: to decide anything.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use watershed_heartbeats::{Honesty, Outcome};

use super::Ledger;
use crate::metrics::{OutcomeLabels, ReasonLabels};

/// The families of heartbeats. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct HeartbeatMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    absorbed: Counter,
    written: Counter,
    forwarded: Counter,
    refused: Counter,
    /// Those that were forwarded, by reason.
    reasons: Family<ReasonLabels, Counter>,
    /// Writes that came to nothing: `conflict`, `missing`, `refused`, `failed`, `needless`.
    failures: Family<ReasonLabels, Counter>,
    gauges: Gauges,
}

#[derive(Clone, Debug, Default)]
struct Gauges {
    nodes: Gauge,
    is_honest: Gauge,
    oldest_unwritten: Gauge<f64, std::sync::atomic::AtomicU64>,
    deadline_misses: Counter,
    waiting: Gauge,
    under_way: Gauge,
    allowed: Gauge,
}

impl HeartbeatMetrics {
    /// Families that count from zero.
    pub(crate) fn new() -> Self {
        let outcomes = Family::<OutcomeLabels, Counter>::default();
        let of = |outcome| outcomes.get_or_create(&OutcomeLabels { outcome }).clone();
        Self {
            absorbed: of("absorbed"),
            written: of("written"),
            forwarded: of("forwarded"),
            refused: of("refused"),
            outcomes,
            reasons: Family::default(),
            failures: Family::default(),
            gauges: Gauges::default(),
        }
    }

    /// Registers every family.
    pub(crate) fn register(&self, to: &mut Registry) {
        let it = self.clone();
        to.register("heartbeats", "Heartbeats, by outcome", it.outcomes);
        let to = to.sub_registry_with_prefix("heartbeats");
        to.register(
            "forwarded",
            "Heartbeats that were forwarded unchanged, by reason",
            it.reasons,
        );
        to.register(
            "write_failures",
            "Writes of renewals that came to nothing, by reason",
            it.failures,
        );
        let it = it.gauges;
        to.register("nodes", "Nodes whose renewals are known", it.nodes);
        to.register(
            "absorbing",
            "1 while writes are proven to arrive, so that renewals may be absorbed",
            it.is_honest,
        );
        to.register(
            "oldest_unwritten_seconds",
            "Age of the last write of the node that waits longest for one; 0 if none does",
            it.oldest_unwritten,
        );
        to.register(
            "deadline_misses",
            "Writes that ended less than 15 seconds before the node would be given up",
            it.deadline_misses,
        );
        to.register(
            "writes_waiting",
            "Writes that wait for their turn",
            it.waiting,
        );
        to.register(
            "writes_under_way",
            "Writes that are under way",
            it.under_way,
        );
        to.register("writes_allowed", "Writes that may be under way", it.allowed);
    }

    /// One was answered here without a write.
    pub(super) fn absorbed(&self) {
        self.absorbed.inc();
    }

    /// A client was told to come back.
    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    /// One was forwarded.
    pub(super) fn forwarded(&self, reason: &'static str) {
        self.forwarded.inc();
        let reason = ReasonLabels { reason };
        self.reasons.get_or_create(&reason).inc();
    }

    /// A write is over.
    pub(super) fn wrote(&self, outcome: Outcome) {
        let reason = match outcome {
            Outcome::Written(_) => {
                self.written.inc();
                return;
            }
            Outcome::Conflict => "conflict",
            Outcome::Missing => "missing",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Needless(_) => "needless",
        };
        self.failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Reads the gauges.
    pub(super) fn read(&self, ledger: &Ledger) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let it = &self.gauges;
        ledger.with(|now, table| {
            it.nodes.set(gauge(table.len()));
            let is_honest = table.honesty(now) == Honesty::Honest;
            it.is_honest.set(i64::from(is_honest));
            let oldest = table.oldest_unwritten().map(|oldest| now.since(oldest));
            it.oldest_unwritten
                .set(oldest.unwrap_or_default().as_secs_f64());
            let missed = table.deadline_misses();
            it.deadline_misses
                .inc_by(missed.saturating_sub(it.deadline_misses.get()));
            let (waiting, under_way, allowed) = table.writes();
            it.waiting.set(gauge(waiting));
            it.under_way.set(i64::from(under_way));
            it.allowed.set(i64::from(allowed));
        });
    }
}
