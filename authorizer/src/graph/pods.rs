//! Pods and whatever else belongs to a node by saying so.
//!
//! Owns the changes. An object that says what it said before changes nothing, which is what most
//! updates of a pod are.

use super::names::{Kind, Link, Vertex};
use super::{Revoked, State};
use crate::facts::{NodeFacts, PodFacts, Reference, Referenced};

impl State {
    pub(super) fn upsert_pod(&mut self, pod: &PodFacts<'_>) -> Revoked {
        let known = self.names.find(Kind::Pod, &pod.namespace, &pod.name);
        let known = known.and_then(|vertex| Some((vertex, self.node_of(vertex)?)));
        if pod.node.is_empty() {
            return match known {
                Some((vertex, node)) => self.unbind_pod(vertex, node),
                None => Revoked::Nothing,
            };
        }
        let vertex = self.names.acquire(Kind::Pod, &pod.namespace, &pod.name);
        let node = self.acquire_node(&pod.node);
        let mentioned = self.acquire_all(&pod.namespace, &pod.references);
        let Some((_, before)) = known else {
            self.bind_pod(vertex, node, &mentioned);
            return Revoked::Nothing;
        };
        // The vertex of the pod is counted twice now; unbinding or undoing takes one back.
        let edges = self.edges_of(before);
        if before == node && edges.of(vertex).eq(mentioned.iter().copied()) {
            self.names.release(vertex);
            self.release_node(node);
            self.release_all(&mentioned);
            return Revoked::Nothing;
        }
        let keeps = before == node
            && edges
                .of(vertex)
                .all(|object| mentioned.binary_search(&object).is_ok());
        let revoked = if keeps {
            Revoked::Nothing
        } else {
            self.lose(before)
        };
        self.cut_pod(vertex, before);
        self.bind_pod(vertex, node, &mentioned);
        revoked
    }

    /// Forgets a pod that is bound to the node.
    pub(super) fn unbind_pod(&mut self, pod: Vertex, node: Vertex) -> Revoked {
        let revoked = self.lose(node);
        self.cut_pod(pod, node);
        revoked
    }

    pub(super) fn upsert_bound(&mut self, kind: Kind, facts: &NodeFacts<'_>) -> Revoked {
        let known = self.names.find(kind, &facts.namespace, &facts.name);
        let known = known.and_then(|vertex| Some((vertex, self.node_of(vertex)?)));
        if let Some((vertex, before)) = known {
            if self.names.name(before) == facts.node {
                return Revoked::Nothing;
            }
            let revoked = self.unbind(vertex, before);
            self.bind(kind, facts);
            return revoked;
        }
        self.bind(kind, facts);
        Revoked::Nothing
    }

    /// Forgets an object that belongs to the node.
    pub(super) fn unbind(&mut self, object: Vertex, node: Vertex) -> Revoked {
        let revoked = self.lose(node);
        self.names.release(object);
        self.release_node(node);
        revoked
    }

    fn bind(&mut self, kind: Kind, facts: &NodeFacts<'_>) {
        if facts.node.is_empty() {
            return;
        }
        let object = self.names.acquire(kind, &facts.namespace, &facts.name);
        let node = self.acquire_node(&facts.node);
        self.names.set_link(object, Link::Node(node));
    }

    /// Links a pod to a node. Takes over what was counted for it.
    fn bind_pod(&mut self, pod: Vertex, node: Vertex, mentioned: &[Vertex]) {
        self.names.set_link(pod, Link::Node(node));
        let number = self.edges_number(node);
        let edges = &mut self.edges[number];
        let before = edges.bytes();
        edges.insert(pod, mentioned);
        self.list_bytes = self.list_bytes + edges.bytes() - before;
        self.mentions += mentioned.len();
    }

    /// Unlinks a pod from its node, and counts what that was counted for once less.
    fn cut_pod(&mut self, pod: Vertex, node: Vertex) {
        let number = self.edges_number(node);
        let edges = &mut self.edges[number];
        let mentioned: Vec<Vertex> = edges.of(pod).collect();
        let before = edges.bytes();
        edges.remove(pod);
        self.list_bytes = self.list_bytes + edges.bytes() - before;
        self.mentions -= mentioned.len();
        self.release_all(&mentioned);
        self.names.release(pod);
        self.release_node(node);
    }

    fn node_of(&self, vertex: Vertex) -> Option<Vertex> {
        match self.names.link(vertex) {
            Link::Node(node) => Some(node),
            Link::None | Link::Edges(_) | Link::Volume(_) | Link::Mounts(_) => None,
        }
    }

    /// What is mentioned, each once, sorted and counted.
    fn acquire_all(&mut self, namespace: &str, references: &[Reference<'_>]) -> Vec<Vertex> {
        let mut acquired: Vec<Vertex> = references
            .iter()
            .map(|reference| {
                let kind = kind_of(reference.kind);
                self.names.acquire(kind, namespace, &reference.name)
            })
            .collect();
        acquired.sort_unstable();
        acquired.dedup_by(|second, first| {
            let same = second == first;
            if same {
                self.names.release(*second);
            }
            same
        });
        acquired
    }

    fn release_all(&mut self, vertices: &[Vertex]) {
        for &vertex in vertices {
            self.names.release(vertex);
        }
    }
}

const fn kind_of(referenced: Referenced) -> Kind {
    match referenced {
        Referenced::ConfigMap => Kind::ConfigMap,
        Referenced::PersistentVolumeClaim => Kind::PersistentVolumeClaim,
        Referenced::ResourceClaim => Kind::ResourceClaim,
        Referenced::Secret => Kind::Secret,
        Referenced::ServiceAccount => Kind::ServiceAccount,
    }
}
