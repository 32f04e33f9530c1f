//! What is asked about a renewal, and what the answers are.

use std::time::Duration;

use crate::write::Write;
use crate::writes::Ticket;
#[cfg(doc)]
use crate::{Heartbeats, Lease, NodeStatus};
use crate::{MicroTime, Owner, Renewal, StatusRenewal, Uid};

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
    /// What [`NodeStatus::compare`] found.
    pub renewal: StatusRenewal,
    /// How much older than what is said the store may be; zero to forward all.
    pub period: Duration,
    /// Whether the watch of nodes is alive and was heard of in the last 75 s.
    pub fresh: bool,
}

/// What to do with a heartbeat in a Node's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusDecision {
    /// Answer 200 with [`NodeStatus::renewed`].
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
