//! What one node may read, and because of which pods.
//!
//! Owns a sorted list of pairs: an object, and a pod of the node that mentions it. A node has a few
//! hundred, so that a lookup is a binary search in a few cache lines, and a change moves a few
//! kilobytes. Sorted by object first: what a node may read of one kind lies together.
//!
//! Rejected: a set of nodes for each object. It costs as much, and a config map that every pod of a
//! large namespace mounts has a set as large as the cluster.

use super::names::{Kind, Vertex};

#[derive(Debug, Default)]
pub(super) struct Edges {
    sorted: Vec<Edge>,
    /// When the node lost something last, as a number of losses of the graph.
    pub(super) lost_at: u64,
}

/// A pod of the node mentions an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    object: Vertex,
    pod: Vertex,
}

impl Edges {
    /// None yet, and what was before is lost.
    pub(super) fn since(lost_at: u64) -> Self {
        let sorted = Vec::new();
        Self { sorted, lost_at }
    }

    /// Whether a pod of the node mentions the object.
    pub(super) fn has(&self, object: Vertex) -> bool {
        let found = self
            .sorted
            .binary_search_by_key(&object, |edge| edge.object);
        found.is_ok()
    }

    /// The claims that pods of the node mention.
    pub(super) fn claims(&self) -> impl Iterator<Item = Vertex> {
        let first = Vertex::first(Kind::PersistentVolumeClaim);
        let begin = self.sorted.partition_point(|edge| edge.object < first);
        let claims = self.sorted[begin..].iter().map(|edge| edge.object);
        claims.take_while(|object| object.is(Kind::PersistentVolumeClaim))
    }

    /// What a pod mentions, sorted.
    pub(super) fn of(&self, pod: Vertex) -> impl Iterator<Item = Vertex> {
        let of_pod = self.sorted.iter().filter(move |edge| edge.pod == pod);
        of_pod.map(|edge| edge.object)
    }

    /// Adds what a pod mentions, each object once.
    pub(super) fn insert(&mut self, pod: Vertex, objects: &[Vertex]) {
        let free = self.sorted.capacity() - self.sorted.len();
        if free < objects.len() {
            // An eighth in advance: twice as much would double what all nodes hold.
            let more = objects.len() + self.sorted.len() / 8;
            self.sorted.reserve_exact(more);
        }
        let edges = objects.iter().map(|&object| Edge { object, pod });
        self.sorted.extend(edges);
        // The stable sort takes two sorted runs for what they are, and merges them.
        self.sorted.sort();
    }

    /// Removes what a pod mentions.
    pub(super) fn remove(&mut self, pod: Vertex) {
        self.sorted.retain(|edge| edge.pod != pod);
        if self.sorted.len() < self.sorted.capacity() / 2 {
            self.sorted.shrink_to_fit();
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.sorted.capacity() * size_of::<Edge>()
    }
}
