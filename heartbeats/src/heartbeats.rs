//! What becomes of each renewal.
//!
//! Owns the table of nodes and the decision: absorb, write, wait, forward or shed. A renewal is
//! absorbed only if everything that could make that a lie has been ruled out, in an order in which
//! each test may rely on those before. Refuses to act by itself: no write happens without a renewal
//! that asked for it, so what a dead kubelet would have said is never said for it.

mod told;

pub use told::Report;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::bounds::Bounds;
use crate::decision::{Asked, AskedStatus, Decision, Reason, StatusDecision, Turn};
use crate::honesty::{Honesty, PROOF, Proof};
use crate::node::Node;
use crate::write::{After, Needless, Outcome, Write};
use crate::writes::{Limits, Place, Ticket, Writes};
use crate::{Lease, Moment, Owner, Renewal, StatusRenewal, StatusTimes, Uid};

/// Absorbs renewals. Its owner calls it under a lock; every call but [`Self::owed`],
/// [`Self::tell_all`] and [`Self::oldest_unwritten`] takes about a microsecond.
#[derive(Debug)]
pub struct Heartbeats {
    bounds: Bounds,
    limits: Limits,
    nodes: HashMap<Arc<str>, Box<Node>>,
    proof: Proof,
    writes: Writes<Write>,
    /// Nodes about which peers have to hear; each once.
    changed: VecDeque<Arc<str>>,
    /// A peer hears of what is not written.
    replicated: bool,
    draining: bool,
    /// Writes that ended beyond the deadline of their node.
    deadline_misses: u64,
}

impl Heartbeats {
    /// Knows of no node: the first renewal of each is written.
    pub fn new(bounds: Bounds, limits: Limits) -> Self {
        Self {
            bounds,
            limits,
            nodes: HashMap::new(),
            proof: Proof::default(),
            writes: Writes::new(limits),
            changed: VecDeque::new(),
            replicated: false,
            draining: false,
            deadline_misses: 0,
        }
    }

    /// Decides about a renewal.
    pub fn decide(&mut self, now: Moment, asked: &Asked<'_>) -> Decision {
        let honesty = self.honesty(now);
        if honesty == Honesty::Shedding && !self.proof.takes_trial(now) {
            return Decision::Shed;
        }
        if let Some(reason) = self.bars(asked) {
            return Decision::Forward(reason);
        }
        let bounds = self.bounds();
        let Some((name, node)) = self.node(now, asked) else {
            return Decision::Forward(Reason::TooManyNodes);
        };
        let newer = asked.renewal.renew_time > node.heard;
        node.hear(now, &asked.renewal, asked.connection);
        if node.is_contested(now) {
            return Decision::Forward(Reason::Contested);
        }
        if !newer {
            return Decision::Forward(Reason::NotNewer);
        }
        let honest = honesty == Honesty::Honest;
        let flush_period = node.flush_period(&bounds, asked.renewal.duration);
        let due = node
            .written_at()
            .is_none_or(|written_at| now.since(written_at) >= flush_period);
        let absorbs = match node.writing {
            None => honest && !due,
            // One write at a time: two would only refuse each other.
            Some(since) if honest && !flush_period.is_zero() && now.since(since) < PROOF => true,
            Some(_) => return Decision::Forward(Reason::BeingWritten),
        };
        if absorbs {
            node.acknowledged = asked.renewal.renew_time;
            self.tell(&name);
            return Decision::Absorb;
        }
        self.write(now, name, &asked.renewal)
    }

    /// Whether a renewal is anything but one that a live lease of a live node allows.
    fn bars(&self, asked: &Asked<'_>) -> Option<Reason> {
        let owned = |owner: &Owner<'_>| owner.name == asked.node.as_bytes();
        if self.draining {
            Some(Reason::Draining)
        } else if !asked.fresh {
            Some(Reason::Stale)
        } else if !asked.owner.as_ref().is_some_and(owned) {
            Some(Reason::NotOwned)
        } else if asked.owner.map(|owner| owner.uid) != asked.node_uid {
            Some(Reason::OtherNode)
        } else {
            None
        }
    }

    /// The node of a renewal: what is known of another lease of its name is forgotten.
    fn node(&mut self, now: Moment, asked: &Asked<'_>) -> Option<(Arc<str>, &mut Node)> {
        let known = self.nodes.get_key_value(asked.node);
        let name = match known {
            Some((name, node)) if node.uid == asked.renewal.uid => Arc::clone(name),
            None if self.nodes.len() >= self.limits.nodes => return None,
            _ => {
                let name: Arc<str> = asked.node.into();
                let [nth, ..] = self.nodes.len().to_le_bytes();
                let node = Box::new(Node::new(now, &asked.renewal, asked.stored, nth));
                self.nodes.remove(&name);
                self.nodes.insert(Arc::clone(&name), node);
                name
            }
        };
        let node = self.nodes.get_mut(&name)?;
        Some((name, node))
    }

    fn write(&mut self, now: Moment, name: Arc<str>, renewal: &Renewal) -> Decision {
        let bounds = self.bounds();
        let node = self
            .nodes
            .get_mut(&name)
            .expect("its renewal was just heard");
        let deadline = node.deadline(&bounds);
        let write = || Write {
            node: Arc::clone(&name),
            uid: renewal.uid,
            renew_time: renewal.renew_time,
            heard_at: now,
            sent_at: now,
            attempt: 1,
        };
        match self.writes.ask(now, deadline, write()) {
            Place::Now => {
                node.writing = Some(now);
                Decision::Write(write())
            }
            Place::Later(ticket) => Decision::Wait(ticket),
            Place::Full => Decision::Shed,
        }
    }

    /// The next of those that wait whose fate is known; to be asked for after every
    /// [`Self::finished`] and once a second, until there is none.
    pub fn next(&mut self, now: Moment) -> Option<(Ticket, Turn)> {
        if let Some((ticket, _late)) = self.writes.expired(now) {
            return Some((ticket, Turn::Shed));
        }
        let (ticket, mut write) = self.writes.next()?;
        let node = self.nodes.get_mut(&write.node);
        let turn = match node.filter(|node| node.uid == write.uid) {
            None => Turn::Forward,
            Some(node) if node.written >= write.renew_time => Turn::Absorb,
            // Two connections of one node: the other's write goes first, this client's own way.
            Some(node) if node.writing.is_some() => Turn::Forward,
            Some(node) => {
                node.writing = Some(now);
                write.sent_at = now;
                return Some((ticket, Turn::Write(write)));
            }
        };
        self.writes.unused();
        Some((ticket, turn))
    }

    /// Forgets one that waits: its client has gone.
    pub fn abandon(&mut self, ticket: Ticket) {
        self.writes.remove(ticket);
    }

    /// Takes in what came of a write. Only `Written` proves anything.
    pub fn finished(&mut self, now: Moment, mut write: Write, outcome: Outcome) -> After {
        if outcome == Outcome::Conflict && write.attempt == 1 {
            write.attempt = 2;
            return After::Again(write);
        }
        let failed = outcome == Outcome::Failed;
        self.writes.over(now, now.since(write.sent_at), failed);
        let node = self.nodes.get_mut(&write.node);
        let node = node.filter(|node| node.uid == write.uid);
        if let Some(node) = node {
            node.writing = None;
            if let Outcome::Written(version) = outcome {
                let deadline = node.deadline(&self.bounds);
                self.deadline_misses += u64::from(write.heard_at <= deadline && deadline < now);
                node.stored(write.heard_at, version, write.renew_time);
            }
        }
        match outcome {
            Outcome::Written(_version) => {
                self.proof.succeeded(now);
                self.tell(&write.node);
                After::Relay
            }
            Outcome::Needless(Needless::Stored) => After::Absorb,
            Outcome::Needless(Needless::OtherLease) => After::Forward,
            Outcome::Missing => {
                self.forget(&write.node, Some(write.uid));
                After::Relay
            }
            Outcome::Failed => {
                self.proof.failed(now);
                After::Relay
            }
            Outcome::Conflict | Outcome::Refused => After::Relay,
        }
    }

    /// Ends a write whose client has gone before the answer came. It may have arrived or may yet
    /// arrive: that proves nothing, neither that writes arrive nor that they fail.
    pub fn gone(&mut self, now: Moment, write: Write) {
        self.writes.gone(now, now.since(write.sent_at));
        let node = self.nodes.get_mut(&write.node);
        if let Some(node) = node.filter(|node| node.uid == write.uid) {
            node.writing = None;
        }
    }

    /// Takes in what came of a lease request that was forwarded: whether the
    /// upstream did what was asked, or failed as in [`Outcome::Failed`].
    pub fn forwarded(&mut self, now: Moment, succeeded: bool) {
        if succeeded {
            self.proof.succeeded(now);
        } else {
            self.proof.failed(now);
        }
    }

    /// Takes in a lease that the watch tells of, or a list.
    pub fn lease_seen(&mut self, now: Moment, name: &str, lease: &Lease<'_>) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.uid != lease.uid() || lease.is_being_deleted() {
            return self.forget(name, None);
        }
        let before = node.written;
        let when = node.said_at(lease.renew_time(), now);
        node.stored(when, lease.resource_version(), lease.renew_time());
        if node.written > before {
            self.tell_by_name(name);
        }
    }

    /// A lease, or the Node that owns it, was deleted.
    pub fn deleted(&mut self, name: &str) {
        self.forget(name, None);
    }

    /// Whether a peer hears of what is not written here; not so at first. If none does, less is
    /// absorbed from now on, or nothing. Without meaning where the bounds are those without peers.
    pub const fn set_replicated(&mut self, replicated: bool) {
        self.replicated = replicated;
    }

    /// What is safe now.
    fn bounds(&self) -> Bounds {
        if self.replicated {
            self.bounds
        } else {
            self.bounds.without_peers()
        }
    }

    /// No renewal is absorbed any more. What is owed is in [`Self::owed`].
    pub const fn drain(&mut self) {
        self.draining = true;
    }

    /// What may be said without having been written.
    pub fn honesty(&self, now: Moment) -> Honesty {
        self.proof.honesty(now, self.writes.is_late(now))
    }

    /// Whether peers should write what is owed here, because this replica cannot: its writes fail, and
    /// none has arrived for as long as one proves anything.
    pub fn is_cut_off(&self, now: Moment) -> bool {
        self.proof.is_cut_off(now)
    }

    /// Decides about a heartbeat in a Node's status. How old the store is, the kubelet says itself:
    /// by its own clock, so that it does not matter who wrote last, nor that this replica has just
    /// begun.
    pub fn decide_status(&mut self, now: Moment, asked: &AskedStatus<'_>) -> StatusDecision {
        let StatusRenewal { times, stored } = asked.renewal;
        if !asked.fresh || !self.absorbs_status(now, asked.node) {
            return StatusDecision::Forward;
        }
        let Some(node) = self.nodes.get_mut(asked.node) else {
            return StatusDecision::Forward;
        };
        let said = node.status();
        if !times.is_newer_than(stored) || said.is_some_and(|said| !times.is_newer_than(said)) {
            return StatusDecision::Forward;
        }
        if times.since(stored) >= asked.period {
            return StatusDecision::WriteThrough;
        }
        if node.answer_status(times) {
            StatusDecision::Absorb
        } else {
            StatusDecision::Forward
        }
    }

    /// The times in a Node's status that were answered here last; for [`fold`](crate::fold).
    pub fn absorbed_status(&self, name: &str) -> Option<StatusTimes> {
        self.nodes.get(name)?.status()
    }

    /// Whether a heartbeat in the Node's status may be absorbed as far as its lease is concerned:
    /// not while the clock of the node was put back, and not while its lease is not renewed, when
    /// the controller has nothing else to go by.
    pub fn absorbs_status(&self, now: Moment, name: &str) -> bool {
        let plain =
            |node: &Node| !node.stepped_back && !node.is_contested(now) && node.is_renewed(now);
        !self.draining
            && self.honesty(now) == Honesty::Honest
            && self.nodes.get(name).is_some_and(|node| plain(node))
    }

    fn forget(&mut self, name: &str, uid: Option<Uid>) {
        if self
            .nodes
            .get(name)
            .is_some_and(|node| uid.is_none_or(|uid| uid == node.uid))
        {
            self.nodes.remove(name);
        }
    }
}
