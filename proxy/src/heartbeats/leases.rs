//! Leases and nodes as the caches hold them.
//!
//! Owns: which resources absorption needs, what the ledger is told when a lease changes, and the
//! look-up of a node's lease and uid. Refuses: to open or close caches ([`crate::caches`]), and to
//! say anything from one whose stream is not alive.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use watershed_cache::{Object, Observer, Snapshot, WatchCache, encoding};
use watershed_heartbeats::{Encoding, Lease, Uid};

use super::Ledger;
use crate::{
    caches::{CacheKey, Caches},
    discovery::GroupVersionResource,
};

/// Where kubelets keep theirs.
pub(crate) const NAMESPACE: &str = "kube-node-lease";

/// The caches of leases, in protobuf and in JSON.
pub(crate) static LEASES: LazyLock<[CacheKey; 2]> =
    LazyLock::new(|| keys("coordination.k8s.io", "leases"));
/// The caches of Nodes, which own them.
pub(crate) static NODES: LazyLock<[CacheKey; 2]> = LazyLock::new(|| keys("", "nodes"));

fn keys(group: &str, resource: &str) -> [CacheKey; 2] {
    let gvr = GroupVersionResource {
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
    };
    [encoding::Encoding::Protobuf, encoding::Encoding::Json].map(|encoding| CacheKey {
        gvr: gvr.clone(),
        encoding,
    })
}

/// A stream that said nothing for so long is not believed; an apiserver sends bookmarks every
/// minute.
pub(super) const FRESH: Duration = Duration::from_secs(75);

/// Tells the ledger of the leases of one cache.
#[derive(Clone)]
pub(crate) struct LeaseFeed {
    ledger: Arc<Ledger>,
}

impl LeaseFeed {
    /// Tells `ledger`.
    pub(crate) const fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger }
    }
}

impl Observer for LeaseFeed {
    fn upserted(&self, object: &Object) {
        if object.namespace() != NAMESPACE {
            return;
        }
        let name = object.name();
        // One that is not understood is no renewal's: those are forwarded.
        let Ok(lease) = read(object) else {
            return self.removed(object);
        };
        self.ledger
            .with(|now, table| table.lease_seen(now, name, &lease));
        let mut estate = self.ledger.estate();
        estate.stored(lease.uid(), lease.renew_time());
    }

    fn removed(&self, object: &Object) {
        if object.namespace() != NAMESPACE {
            return;
        }
        self.ledger.with(|_now, table| table.deleted(object.name()));
        if let Some(uid) = Uid::parse(object.uid().as_bytes()) {
            self.ledger.estate().forget(uid);
        }
    }

    /// What is known of the nodes stays: whether a lease is still there is asked of the cache at
    /// each renewal.
    fn closed(&self) {}
}

impl std::fmt::Debug for LeaseFeed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("LeaseFeed")
    }
}

/// The lease of an object.
pub(super) fn read(object: &Object) -> Result<Lease<'_>, watershed_heartbeats::Unread> {
    Lease::read(form(object.encoding()), object.bytes())
}

/// The same encoding by the name the other crate has for it.
pub(super) const fn form(encoding: encoding::Encoding) -> Encoding {
    match encoding {
        encoding::Encoding::Json => Encoding::Json,
        encoding::Encoding::Protobuf => Encoding::Protobuf,
    }
}

/// The leases in one encoding, and the nodes in any. Ready when it was made.
pub(super) struct Seen {
    pub(super) leases: WatchCache,
    nodes: WatchCache,
}

impl Seen {
    /// What the caches hold; opened, if they have to be. `None` while they are being filled, or
    /// cannot be had.
    pub(super) async fn find(caches: &Caches, encoding: encoding::Encoding) -> Option<Self> {
        let key = LEASES.iter().find(|key| key.encoding == encoding)?;
        let leases = caches.find(key).await.ok()?.cache;
        let nodes = NODES.iter().find_map(|key| caches.ready(key))?;
        Some(Self { leases, nodes })
    }

    /// Whether both streams are alive and were heard of lately.
    pub(super) fn is_fresh(&self) -> bool {
        self.leases.is_fresh(FRESH) && self.nodes.is_fresh(FRESH)
    }

    /// The lease of a node.
    pub(super) fn lease(&self, node: &str) -> Option<Arc<Object>> {
        lease_in(&self.leases.snapshot().ok()?, node)
    }

    /// Which Node of that name there is.
    pub(super) fn node_uid(&self, node: &str) -> Option<Uid> {
        uid_in(&self.nodes, node)
    }
}

/// The uid of the Node of that name, as a cache has it.
pub(super) fn uid_in(nodes: &WatchCache, node: &str) -> Option<Uid> {
    let snapshot = nodes.snapshot().ok()?;
    Uid::parse(snapshot.get("", node)?.uid().as_bytes())
}

/// The lease of a node in a snapshot of leases.
pub(super) fn lease_in(snapshot: &Snapshot, node: &str) -> Option<Arc<Object>> {
    snapshot.get(NAMESPACE, node).map(Arc::clone)
}
