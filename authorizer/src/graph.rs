//! Which objects are a node's, because its pods mention them.
//!
//! Owns the relations of `plugin/pkg/auth/authorizer/node/graph.go` (1.36), built from what objects
//! say: always those of the newest object that was fed, whatever came before it. It refuses to know
//! whether an object exists, and whether all objects were fed: who asks must know. Invariant: there
//! is a way from an object to a node exactly when the facts of the moment say so.
//!
//! ```text
//!  secret, configmap, claim, resourceclaim, serviceaccount ──► pod ──► node
//!  secret ──► persistentvolume ──► claim ──► pod ──► node
//!  volumeattachment, resourceslice, podcertificaterequest ──► node
//! ```
//!
//! The first row is kept by node ([`edges`]), the second by claim ([`volumes`]); everything else is
//! one link from the object to its node. A lookup hashes three names and searches one short list.
//! For a secret that no pod of the node mentions the volumes of the node's claims are asked, which
//! are few, rather than the volumes of the secret, which may be all of a storage class.
//!
//! One lock guards it all. A reader holds it for a lookup, a writer for one object, both about a
//! microsecond, and objects are read into facts before it is taken. Rejected: shards by node, since
//! names, claims and volumes belong to no node; and copies that are swapped, since pods change
//! every moment.
//!
//! Different from the apiserver, where what it does depends on what it saw before. It ignores a pod
//! update unless node, uid, number of ephemeral containers or claim statuses changed; all else that
//! counts is immutable, but for an extended resource claim noted later, which it sees after its next
//! restart and this graph at once. And it keeps what an old pod mentioned when a new one of its name
//! is not bound yet, which this graph forgets.

mod arena;
mod edges;
mod names;
mod pods;
mod volumes;

use std::fmt;

use parking_lot::RwLock;

use crate::facts::{PersistentVolumeFacts, PodFacts};
use arena::Arena;
use edges::Edges;
pub(crate) use names::Kind;
use names::{Link, Names, Vertex};
use volumes::Volume;

/// Whom a change may have taken a right from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Nobody.
    Nothing,
    /// The node of this name.
    Node(Box<str>),
    /// Maybe any node.
    AnyNode,
    /// Maybe anybody whose rights come from roles.
    AnyUser,
}

/// How large the graph is. It grows with what is fed, without a limit of its own: by a few hundred
/// bytes for a pod, and by its name and eight bytes for every object it mentions. Who feeds it
/// compares the bytes with a limit, and beyond it clears the graph and asks the apiserver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphSize {
    /// Pods that are bound.
    pub pods: usize,
    /// Nodes that something belongs to.
    pub nodes: usize,
    /// Mentions of an object by a pod, each object once.
    pub mentions: usize,
    /// Persistent volumes with a claim.
    pub persistent_volumes: usize,
    /// Names of objects, nodes and namespaces that are spoken of.
    pub names: usize,
    /// Bytes of all of it.
    pub bytes: usize,
}

/// Objects forgotten in one turn of a writer.
const CLEARED_AT_ONCE: usize = 64;

/// The relations. Shared by reference; its methods take its lock.
#[derive(Default)]
pub(crate) struct Graph {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    names: Names,
    /// Linked by nodes.
    edges: Arena<Edges>,
    /// Linked by persistent volumes, and by claims.
    volumes: Arena<Volume>,
    /// Counts what was lost; every generation is a number of it.
    losses: u64,
    /// The loss that may have concerned any node.
    all_lost_at: u64,
    /// The loss after which a node was forgotten.
    forgotten_at: u64,
    /// Of all lists of edges together.
    mentions: usize,
    /// Of all lists of edges, and of secrets, together.
    list_bytes: usize,
}

impl Graph {
    /// Takes in what one object says, instead of what was known of the object.
    pub(crate) fn upsert_pod(&self, pod: &PodFacts<'_>) -> Revoked {
        self.state.write().upsert_pod(pod)
    }

    /// As [`Self::upsert_pod`].
    pub(crate) fn upsert_volume(&self, volume: &PersistentVolumeFacts<'_>) -> Revoked {
        self.state.write().upsert_volume(volume)
    }

    /// As [`Self::upsert_pod`].
    pub(crate) fn upsert_bound(&self, kind: Kind, facts: &crate::facts::NodeFacts<'_>) -> Revoked {
        self.state.write().upsert_bound(kind, facts)
    }

    /// Forgets an object, which need not be known.
    pub(crate) fn delete(&self, kind: Kind, namespace: &str, name: &str) -> Revoked {
        let mut state = self.state.write();
        let known = state.names.find(kind, namespace, name);
        known.map_or(Revoked::Nothing, |object| state.delete(kind, object))
    }

    /// Forgets all objects of a kind, a few at a time, so that readers get their turn.
    pub(crate) fn clear(&self, kind: Kind) -> Revoked {
        let mut revoked = Revoked::Nothing;
        let mut after = None;
        loop {
            let mut state = self.state.write();
            let some: Vec<Vertex> = state.names.of(kind, after).take(CLEARED_AT_ONCE).collect();
            let Some(&last) = some.last() else {
                return revoked;
            };
            for object in some {
                state.delete(kind, object);
            }
            after = Some(last);
            revoked = Revoked::AnyNode;
        }
    }

    /// Whether there is a way from an object to a node.
    pub(crate) fn reaches(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let state = self.state.read();
        let found = state.names.find(Kind::Node, "", node);
        let found = found.zip(state.names.find(kind, namespace, name));
        found.is_some_and(|(node, object)| state.reaches(node, kind, object))
    }

    /// A number that is another one whenever the node may have lost something since.
    pub(crate) fn generation(&self, node: &str) -> u64 {
        let state = self.state.read();
        let lost_at = match state.names.find(Kind::Node, "", node) {
            Some(node) => state.edges_of(node).lost_at,
            None => state.forgotten_at,
        };
        lost_at.max(state.all_lost_at)
    }

    /// How large it is.
    pub(crate) fn size(&self) -> GraphSize {
        let state = self.state.read();
        let (names, volumes) = (&state.names, &state.volumes);
        GraphSize {
            pods: names.len(Kind::Pod),
            nodes: names.len(Kind::Node),
            mentions: state.mentions,
            persistent_volumes: volumes.len(),
            names: names.total(),
            bytes: names.bytes() + state.edges.bytes() + volumes.bytes() + state.list_bytes,
        }
    }
}

impl State {
    /// Forgets an object that was fed.
    fn delete(&mut self, kind: Kind, object: Vertex) -> Revoked {
        match self.names.link(object) {
            Link::Node(node) if kind == Kind::Pod => self.unbind_pod(object, node),
            Link::Node(node) => self.unbind(object, node),
            Link::Volume(volume) => self.remove_volume(volume),
            Link::None | Link::Edges(_) | Link::Mounts(_) => Revoked::Nothing,
        }
    }

    fn reaches(&self, node: Vertex, kind: Kind, object: Vertex) -> bool {
        match kind {
            Kind::Pod
            | Kind::PodCertificateRequest
            | Kind::ResourceSlice
            | Kind::VolumeAttachment => self.names.link(object) == Link::Node(node),
            Kind::ConfigMap
            | Kind::PersistentVolumeClaim
            | Kind::ResourceClaim
            | Kind::ServiceAccount => self.edges_of(node).has(object),
            Kind::PersistentVolume => match self.names.link(object) {
                Link::Volume(volume) => self.edges_of(node).has(self.volumes[volume].claim),
                Link::None | Link::Node(_) | Link::Edges(_) | Link::Mounts(_) => false,
            },
            Kind::Secret => {
                let edges = self.edges_of(node);
                let mounted = || edges.claims().any(|claim| self.mounts(claim, object));
                edges.has(object) || (self.names.link(object) != Link::None && mounted())
            }
            Kind::Namespace | Kind::Node => false,
        }
    }

    fn edges_of(&self, node: Vertex) -> &Edges {
        &self.edges[self.edges_number(node)]
    }

    fn edges_number(&self, node: Vertex) -> u32 {
        match self.names.link(node) {
            Link::Edges(number) => number,
            Link::None | Link::Node(_) | Link::Volume(_) | Link::Mounts(_) => {
                unreachable!("a node has edges from its first use to its last")
            }
        }
    }

    /// The vertex of a node, counted once more.
    fn acquire_node(&mut self, name: &str) -> Vertex {
        let node = self.names.acquire(Kind::Node, "", name);
        if self.names.link(node) == Link::None {
            // As if it had just lost something: it may have been known and forgotten before.
            let edges = Edges::since(self.losses);
            let number = self.edges.insert(edges);
            self.names.set_link(node, Link::Edges(number));
        }
        node
    }

    fn release_node(&mut self, node: Vertex) {
        if let Some(Link::Edges(number)) = self.names.release(node) {
            self.edges.remove(number);
            self.forgotten_at = self.losses;
        }
    }

    /// Notes that a node lost something.
    fn lose(&mut self, node: Vertex) -> Revoked {
        self.losses += 1;
        let number = self.edges_number(node);
        self.edges[number].lost_at = self.losses;
        Revoked::Node(self.names.name(node).into())
    }

    /// Notes that any node may have lost something.
    fn lose_all(&mut self) -> Revoked {
        self.losses += 1;
        self.all_lost_at = self.losses;
        Revoked::AnyNode
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Graph").field(&self.size()).finish()
    }
}
