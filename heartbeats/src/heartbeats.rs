//! What becomes of each renewal.
//!
//! Owns the table of nodes and the decision: absorb, write, wait, forward or shed. A renewal is
//! absorbed only if everything that could make that a lie has been ruled out, in an order in which
//! each test may rely on those before. Refuses to act by itself: no write happens without a renewal
//! that asked for it, so what a dead kubelet would have said is never said for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::bounds::Bounds;
use crate::estate::Debt;
use crate::honesty::{Honesty, PROOF, Proof};
use crate::node::Node;
use crate::write::{After, Needless, Outcome, Write};
use crate::writes::{Limits, Place, Ticket, Writes};
use crate::{Lease, MicroTime, Moment, Owner, Renewal, StatusRenewal, StatusTimes, Uid};

/// What a client that is shed is told to wait.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A renewal, and what the caches say about it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Of the caller's identity, and of the path: they are the same.
    pub node: &'a str,
    /// Which connection it came over; any number that two of them do not share.
    pub connection: u64,
    /// What [`Lease::compare`] found.
    pub renewal: Renewal,
    /// The `renewTime` of the cached lease.
    pub stored: MicroTime,
    /// The owner of the cached lease; `None` too if it is being deleted.
    pub owner: Option<Owner<'a>>,
    /// The uid of the cached Node of that name.
    pub node_uid: Option<Uid>,
    /// Whether the watches of leases and nodes are alive and were heard of in the last 75 s.
    pub fresh: bool,
}

/// What to do with a renewal.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer 200 with [`Lease::renewed`].
    Absorb,
    /// Write it now; end it by [`Heartbeats::finished`] or [`Heartbeats::gone`].
    Write(Write),
    /// Keep the client waiting until [`Heartbeats::next`] returns the ticket.
    Wait(Ticket),
    /// Forward it unchanged, and tell [`Heartbeats::forwarded`] what came of it.
    Forward(Reason),
    /// Answer 429 with [`RETRY_AFTER`].
    Shed,
}

/// A heartbeat in a Node's status, and what the caches say about it.
#[derive(Clone, Copy, Debug)]
pub struct AskedStatus<'a> {
    /// Of the caller's identity, and of the path: they are the same.
    pub node: &'a str,
    /// What [`NodeStatus::compare`](crate::NodeStatus::compare) found.
    pub renewal: StatusRenewal,
    /// How much older than what is said the store may be; zero to forward all.
    pub period: Duration,
    /// Whether the watch of nodes is alive and was heard of in the last 75 s.
    pub fresh: bool,
}

/// What to do with a heartbeat in a Node's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusDecision {
    /// Answer 200 with [`NodeStatus::renewed`](crate::NodeStatus::renewed).
    Absorb,
    /// Forward it: the store is due.
    WriteThrough,
    /// Forward it: its lease does not allow more.
    Forward,
}

/// Why a renewal is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The replica is about to stop.
    Draining,
    /// A watch is not alive.
    Stale,
    /// The lease has no owner, another one than a Node of this name, or is being deleted.
    NotOwned,
    /// The Node is not there, or another one than the owner.
    OtherNode,
    /// Two hosts renew it.
    Contested,
    /// Not newer than what was heard: sent twice, or a clock that was put back.
    NotNewer,
    /// A write of the same lease is under way, and takes long.
    BeingWritten,
    /// The table is full.
    TooManyNodes,
}

impl Reason {
    /// A word for it, for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Stale => "stale",
            Self::NotOwned => "not-owned",
            Self::OtherNode => "other-node",
            Self::Contested => "contested",
            Self::NotNewer => "not-newer",
            Self::BeingWritten => "being-written",
            Self::TooManyNodes => "too-many-nodes",
        }
    }
}

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Write it.
    Write(Write),
    /// The store got as new meanwhile: answer 200 with [`Lease::renewed`].
    Absorb,
    /// The lease is another one by now: forward the client's request.
    Forward,
    /// It waited too long: answer 429.
    Shed,
}

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
                let node = Box::new(Node::new(now, &asked.renewal, asked.stored));
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

    /// Takes in what came of a lease request that was forwarded, or of a probe: whether the
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
        // What was heard here was not said only now.
        let heard_here = lease.renew_time() == node.heard;
        let when = node.heard_at.filter(|_| heard_here).unwrap_or(now);
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

    /// Whether a cheap write that changes nothing is needed to prove that writes arrive, because
    /// no renewal is being written.
    pub fn wants_probe(&self, now: Moment) -> bool {
        self.writes.under_way() == 0 && self.proof.wants_probe(now)
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

    fn forget(&mut self, name: &str, uid: Option<Uid>) {
        if self
            .nodes
            .get(name)
            .is_some_and(|node| uid.is_none_or(|uid| uid == node.uid))
        {
            self.nodes.remove(name);
        }
    }

    fn tell_by_name(&mut self, name: &str) {
        if let Some((name, _node)) = self.nodes.get_key_value(name) {
            let name = Arc::clone(name);
            self.tell(&name);
        }
    }

    /// Notes that peers have to hear of a node, if there are any. The list is bounded: when it is
    /// twice the table, names in it are of nodes long gone.
    fn tell(&mut self, name: &Arc<str>) {
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
