//! What operators see of the peers.
//!
//! Owns: the families, none of them labelled by node or peer. Refuses: to decide anything.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::metrics::{OutcomeLabels, ReasonLabels};

/// The families of the peers. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerMetrics {
    /// Peers that hear of what is not written here.
    pub(super) alive: Gauge,
    /// Peers that were declared gone: `goodbye`, `silent`, `lost`.
    pub(super) gone: Family<ReasonLabels, Counter>,
    /// Connections of those who are no peers: without a certificate of a replica, most of all.
    pub(super) refused: Counter,
    /// Debts told to heirs.
    pub(super) told: Counter,
    /// Debts heard from others.
    pub(super) heard: Counter,
    /// Debts of others that are held.
    pub(super) held: Gauge,
    /// Those of them that have to be paid.
    pub(super) due: Gauge,
    /// Payments: `written`, `needless`, `failed`.
    pub(super) paid: Family<OutcomeLabels, Counter>,
    /// Seconds since peers last knew everything.
    pub(super) untold_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl PeerMetrics {
    /// Registers the families under their names.
    pub(crate) fn register(&self, to: &mut Registry) {
        let it = self.clone();
        to.register("peers", "Peers that hear of unwritten renewals", it.alive);
        to.register("peers_gone", "Peers declared gone, by reason", it.gone);
        to.register(
            "peers_refused",
            "Connections to the peer listener from who is no peer",
            it.refused,
        );
        to.register("debts_told", "Unwritten renewals told to heirs", it.told);
        to.register("debts_heard", "Unwritten renewals heard of", it.heard);
        to.register("debts_held", "Unwritten renewals of peers held", it.held);
        to.register("debts_due", "Those of peers that are gone", it.due);
        to.register("debts_paid", "Payments of these, by outcome", it.paid);
        to.register(
            "untold_seconds",
            "Seconds since peers last knew of every unwritten renewal",
            it.untold_seconds,
        );
    }
}
