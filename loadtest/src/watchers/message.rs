//! What a run says to its loader processes, and what they answer: a line of JSON each.
//!
//! Owns the two types and how answers add up. Refuses to be a protocol for others: both ends are the
//! same executable.
//! Invariant: every command is answered by exactly one report.

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::measure::LatencySummary;
use crate::scenario::Encoding;

/// What a loader does next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Command {
    /// The first: what it is.
    Setup(Setup),
    /// Have connections up to this number of all loaders together, each with so many watches.
    Grow { connections: usize, watches: usize },
    /// Every tenth connection reads nothing, or goes on.
    Stall(bool),
    /// Cut every connection at once.
    Cut,
    /// Tell everything; with the latencies since the last time that they were told.
    Report { latency: bool },
    /// Tell how many events are missing until these lanes are at these sequences.
    Behind { lanes: Vec<(u32, u64)> },
}

/// What a loader is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) url: String,
    /// Certificate and key of the authority, PEM.
    pub(super) authority: (String, String),
    pub(super) plan: Plan,
    pub(super) encoding: Encoding,
    /// Its number, and how many there are.
    pub(super) stripe: (usize, usize),
    /// TLS handshakes at one time.
    pub(super) handshakes: usize,
}

/// What loaders counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Connections now.
    pub connections: u64,
    /// Watches open and in sync now.
    pub watches: u64,
    /// Connections established.
    pub established: u64,
    /// Dials and handshakes that failed.
    pub failed: u64,
    /// Connections that the other side ended.
    pub lost_connections: u64,
    /// Streams that the server ended.
    pub ended: u64,
    /// Objects of initial lists.
    pub initial: u64,
    /// Changes.
    pub events: u64,
    /// Bookmarks.
    pub bookmarks: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// Streams that went on from a version.
    pub resumes: u64,
    /// Streams that had to list again.
    pub relists: u64,
    /// Events lost.
    pub lost: u64,
    /// Events that came twice.
    pub doubled: u64,
    /// Events and bookmarks out of order.
    pub reordered: u64,
    /// Answers a healthy server would not give.
    pub errors: u64,
    /// Some of all that in words.
    pub findings: Vec<String>,
    /// CPU of the loader processes, seconds.
    pub cpu: f64,
    /// Events missing, where that was asked for.
    pub behind: u64,
    /// Write to event where everybody watches.
    pub shared: Histogram,
    /// Write to event where one watches.
    pub single: Histogram,
}

impl Report {
    /// Adds what another loader counted.
    pub(super) fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.watches += other.watches;
        self.established += other.established;
        self.failed += other.failed;
        self.lost_connections += other.lost_connections;
        self.ended += other.ended;
        self.initial += other.initial;
        self.events += other.events;
        self.bookmarks += other.bookmarks;
        self.bytes += other.bytes;
        self.resumes += other.resumes;
        self.relists += other.relists;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.errors += other.errors;
        self.findings.extend(other.findings);
        self.cpu += other.cpu;
        self.behind += other.behind;
        self.shared.add(other.shared);
        self.single.add(other.single);
    }
}

/// Latencies as (microseconds, how many).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram(pub Vec<(u64, u64)>);

impl Histogram {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Its percentiles.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        LatencySummary::of_counts(&self.0)
    }
}
