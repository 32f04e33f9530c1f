//! What others are told: peers of what is owed, people of what is known.
//!
//! Owns the list of nodes about which peers have to hear: each once, the longest untold first, and
//! bounded. Refuses to know who the peers are.

use std::sync::Arc;
use std::time::Duration;

use super::Heartbeats;
use crate::estate::Debt;
use crate::node::Node;
use crate::{MicroTime, Moment};

/// What is known about one node, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The newest time the kubelet said.
    pub heard: MicroTime,
    /// The newest in the store.
    pub written: MicroTime,
    /// When it was heard of.
    pub heard_at: Option<Moment>,
    /// When what is in the store was heard.
    pub written_at: Option<Moment>,
    /// When a renewal of it is written next, at the earliest.
    pub due_at: Option<Moment>,
    /// The longest usual time between renewals.
    pub interval: Option<Duration>,
    /// Whether two hosts seem to renew it.
    pub contested: bool,
}

impl Heartbeats {
    /// What was answered here and is not in the store; for peers, when this replica stops.
    pub fn owed(&self) -> impl Iterator<Item = Debt> {
        self.nodes.iter().filter_map(|(name, node)| {
            node.owed()?;
            Some(debt(name, node))
        })
    }

    /// What peers have not been told: at most `limit` nodes, the longest untold first. A debt that
    /// is paid is told too.
    pub fn changes(&mut self, limit: usize) -> Vec<Debt> {
        let mut debts = Vec::new();
        while debts.len() < limit {
            let Some(name) = self.changed.pop_front() else {
                break;
            };
            if let Some(node) = self.nodes.get_mut(&name).filter(|node| node.changed) {
                node.changed = false;
                debts.push(debt(&name, node));
            }
        }
        debts
    }

    /// Peers have to hear everything that is owed, because others than before are there.
    pub fn tell_all(&mut self) {
        let owing = self
            .nodes
            .iter()
            .filter(|(_name, node)| node.owed().is_some());
        let names: Vec<_> = owing.map(|(name, _node)| Arc::clone(name)).collect();
        names.iter().for_each(|name| self.tell(name));
    }

    /// How many nodes peers have not been told about since they changed.
    pub fn untold(&self) -> usize {
        self.changed.len()
    }

    /// Since when the longest unwritten answer has been waiting for a write of its node.
    pub fn oldest_unwritten(&self) -> Option<Moment> {
        let owing = self.nodes.values().filter(|node| node.owed().is_some());
        owing.filter_map(|node| node.written_at()).min()
    }

    /// What is known about a node.
    pub fn report(&self, now: Moment, name: &str) -> Option<Report> {
        let node = self.nodes.get(name)?;
        // The usual duration: that of the lease is not kept.
        let flush_period = node.flush_period(&self.bounds(), 40);
        Some(Report {
            heard: node.heard,
            written: node.written,
            heard_at: node.heard_at,
            written_at: node.written_at(),
            due_at: node
                .written_at()
                .map(|written_at| written_at + flush_period),
            interval: node.interval(),
            contested: node.is_contested(now),
        })
    }

    /// Writes of renewals that were heard in time and ended less than 15 s before the node would be
    /// given up.
    pub const fn deadline_misses(&self) -> u64 {
        self.deadline_misses
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Writes that wait, that are under way, and that may be.
    pub fn writes(&self) -> (usize, u32, u32) {
        let writes = &self.writes;
        (writes.waiting(), writes.under_way(), writes.allowed())
    }

    pub(super) fn tell_by_name(&mut self, name: &str) {
        if let Some((name, _node)) = self.nodes.get_key_value(name) {
            let name = Arc::clone(name);
            self.tell(&name);
        }
    }

    /// Notes that peers have to hear of a node, if there are any. The list is bounded: when it is
    /// twice the table, names in it are of nodes long gone.
    pub(super) fn tell(&mut self, name: &Arc<str>) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if !self.bounds.settings().peers || std::mem::replace(&mut node.changed, true) {
            return;
        }
        self.changed.push_back(Arc::clone(name));
        if self.changed.len() > 2 * self.limits.nodes {
            self.changed.pop_front();
        }
    }
}

fn debt(name: &Arc<str>, node: &Node) -> Debt {
    Debt {
        node: Arc::clone(name),
        uid: node.uid,
        renew_time: node.acknowledged.max(node.written),
        written: node.written,
        heard_at: node.heard_at.unwrap_or_default(),
    }
}
