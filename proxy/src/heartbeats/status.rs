//! One patch of a Node's status by its kubelet, from its body to its answer.
//!
//! Owns: the answer of one that says nothing but that the kubelet is
//! alive, and the addition of what was answered so to the next that says more. Refuses: to say
//! anything of writes that arrive: nodes and leases may be in different stores.
//! Invariant: whatever is not certain is forwarded, and nothing of what the client sent is changed.
//!
//! ```text
//!  body ─┬─ heartbeat ─► cached Node ─► decide ─┬─ Absorb ──────► 200 from the cached Node
//!        │                                      ├─ WriteThrough ► as it came
//!        │                                      └─ Forward ─────► as it came
//!        └─ real ─► with what was absorbed, if it fits ─────────► to the apiserver
//! ```

use std::sync::Arc;

use bytes::Bytes;
use watershed_cache::{Object, WatchCache, encoding::Encoding};
use watershed_heartbeats::{
    AskedStatus, NodeStatus, StatusDecision, StatusHeartbeat, StatusRenewal, Uid, fold,
};

use super::{
    Absorber, Beat, Renewed,
    leases::{self, FRESH, LEASES, NODES, form},
    renewal::answer,
};
impl Absorber {
    /// Absorbs a patch, or says how it is to be forwarded.
    pub(super) fn patch(&self, beat: &Beat<'_>) -> Renewed {
        match StatusHeartbeat::read(beat.body) {
            Some(heartbeat) => self.heartbeat(beat, &heartbeat),
            None => match self.with_absorbed(beat) {
                Some(body) => Renewed::ForwardWith(body),
                None => Renewed::Forward,
            },
        }
    }

    fn heartbeat(&self, beat: &Beat<'_>, heartbeat: &StatusHeartbeat<'_>) -> Renewed {
        let node = &beat.head.node;
        let Some(nodes) = self.nodes(beat.head.accepted) else {
            return self.forward("status-encoding");
        };
        let Some(cached) = node_in(&nodes, node) else {
            return self.forward("no-node");
        };
        let Ok(status) = NodeStatus::read(form(cached.encoding()), cached.bytes()) else {
            return self.forward("status-differs");
        };
        let renewal = status
            .compare(heartbeat)
            .filter(|_| self.owns_lease(&cached));
        let shown = renewal.and_then(|renewal| Some((renewal, status.renewed(renewal.times)?)));
        let Some((renewal, shown)) = shown else {
            return self.forward("status-differs");
        };
        match self.decide_status(node, renewal, nodes.is_fresh(FRESH)) {
            StatusDecision::Absorb => {
                self.metrics.absorbed();
                Renewed::Here(answer(cached.encoding(), shown))
            }
            StatusDecision::WriteThrough => self.forward("status-due"),
            StatusDecision::Forward => self.forward("status-unproven"),
        }
    }

    fn decide_status(&self, node: &str, renewal: StatusRenewal, fresh: bool) -> StatusDecision {
        let asked = AskedStatus {
            node,
            renewal,
            period: self.ledger.status_period(),
            fresh,
        };
        self.ledger
            .with(|now, table| table.decide_status(now, &asked))
    }

    /// Whether the node's lease is this Node's, not that of one of its name before.
    fn owns_lease(&self, node: &Object) -> bool {
        let lease = LEASES.iter().find_map(|key| {
            let leases = self.caches.ready(key)?;
            leases::lease_in(&leases.snapshot().ok()?, node.name())
        });
        lease.is_some_and(|lease| {
            let owner = leases::read(&lease).ok();
            let owner = owner.and_then(|lease| Some(lease.owner()?.uid));
            owner.is_some() && owner == Uid::parse(node.uid().as_bytes())
        })
    }

    /// A real patch with what was absorbed before it; `None` if it is to go as it came.
    fn with_absorbed(&self, beat: &Beat<'_>) -> Option<Bytes> {
        let node = &beat.head.node;
        let absorbed = self
            .ledger
            .with(|_now, table| table.absorbed_status(node))?;
        let cached = NODES
            .iter()
            .find_map(|key| node_in(&self.caches.ready(key)?, node))?;
        // What another Node of its name said is not this one's.
        self.owns_lease(&cached).then_some(())?;
        let status = NodeStatus::read(form(cached.encoding()), cached.bytes()).ok()?;
        fold(beat.body, absorbed, status.times()).map(Bytes::from)
    }

    /// The Nodes in one encoding, if they are there.
    fn nodes(&self, encoding: Encoding) -> Option<WatchCache> {
        let key = NODES.iter().find(|key| key.encoding == encoding)?;
        self.caches.ready(key)
    }
}

fn node_in(nodes: &WatchCache, node: &str) -> Option<Arc<Object>> {
    nodes.snapshot().ok()?.get("", node).map(Arc::clone)
}
