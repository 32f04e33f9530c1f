//! Which nodes the node lifecycle controller takes for lost.
//!
//! Owns the rule of `pkg/controller/nodelifecycle/node_lifecycle_controller.go`, 1.36, on a clock
//! that is handed in: a node is refreshed when its lease shows a later `renewTime` than the one
//! remembered, or its Ready condition another heartbeat, and lost when that was longer ago than the
//! grace period. How old a `renewTime` is by any clock plays no part, nor does the duration of the
//! lease.
//! Refuses to read or write anything: [`Controller`](super::Controller) does, and what follows a
//! loss (taints, evictions) is nobody's here.
//! Invariant: a lost node is found again only by a refresh.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// `--node-startup-grace-period`: for nodes that have no Ready condition yet.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// What the informers' caches hold of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// `lastHeartbeatTime` of the Ready condition, seconds; none where there is no such condition.
    pub heartbeat: Option<i64>,
    /// `renewTime` of the lease, microseconds; none where there is no lease.
    pub renew_time: Option<i64>,
}

/// What a visit changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The node is taken for lost: its conditions become Unknown.
    Lost,
    /// A lost node was heard of.
    Found,
}

#[derive(Debug)]
struct Health {
    probe: Instant,
    heartbeat: Option<i64>,
    renew_time: Option<i64>,
    is_lost: bool,
}

/// The health of all nodes.
#[derive(Debug)]
pub struct Lifecycle {
    grace: Duration,
    nodes: HashMap<String, Health>,
}

impl Lifecycle {
    /// A controller that was just started: every node has the whole grace period.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            nodes: HashMap::new(),
        }
    }

    /// Visits one node in a pass.
    pub fn visit(&mut self, now: Instant, name: &str, observed: Observed) -> Option<Change> {
        let Some(health) = self.nodes.get_mut(name) else {
            let health = Health {
                probe: now,
                heartbeat: observed.heartbeat,
                renew_time: observed.renew_time,
                is_lost: false,
            };
            self.nodes.insert(name.to_owned(), health);
            return None;
        };
        let known = health.renew_time;
        if health.heartbeat != observed.heartbeat {
            // The lease is forgotten with the rest, so that the next pass refreshes once more.
            health.heartbeat = observed.heartbeat;
            health.renew_time = None;
            health.probe = now;
        }
        let is_newer = |time: &i64| known.is_none_or(|known| known < *time);
        if let Some(time) = observed.renew_time.filter(is_newer) {
            health.renew_time = Some(time);
            health.probe = now;
        }
        let grace = match observed.heartbeat {
            Some(_) => self.grace,
            None => STARTUP_GRACE,
        };
        let is_lost = now > health.probe + grace;
        let change = match (health.is_lost, is_lost) {
            (false, true) => Some(Change::Lost),
            (true, false) => Some(Change::Found),
            (false, false) | (true, true) => None,
        };
        health.is_lost = is_lost;
        change
    }

    /// Forgets a node that was deleted.
    pub fn forget(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Nodes that are lost now.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.nodes.values().filter(|health| health.is_lost).count()
    }
}

#[cfg(test)]
mod tests;
