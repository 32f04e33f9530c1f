//! What a cache counts: plain numbers the owner exports under names of its choosing.
//!
//! [`Counters`] only grow and are bumped without locks; [`Stats`] is one look at everything, taken
//! on scrape. Nothing here is labelled, and this crate knows no metrics library.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::resource_version::ResourceVersion;

/// One monotonic count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) events_received: Counter,
    pub(crate) relists: Counter,
    pub(crate) cuts: Counter,
    pub(crate) malformed: Counter,
    pub(crate) probes: Counter,
    pub(crate) fences: Counter,
    pub(crate) expired_watchers: Counter,
}

/// One look at a cache.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Whether reads are answered.
    pub ready: bool,
    /// Objects held.
    pub objects: usize,
    /// Bytes the objects take.
    pub bytes: usize,
    /// Events that can be replayed.
    pub history_events: usize,
    /// Bytes those take beyond the objects, built frames included.
    pub history_bytes: usize,
    /// Open watchers.
    pub watchers: usize,
    /// Watchers that have left an event unread for more than a second.
    pub slow_watchers: usize,
    /// Version up to which the cache is complete.
    pub resource_version: ResourceVersion,
    /// Oldest version a watch may start after.
    pub oldest: ResourceVersion,
    /// When the upstream last sent an event or a bookmark.
    pub last_progress: Instant,
    /// Changes taken from the upstream; repeats are not counted.
    pub events_received: u64,
    /// Event frames handed to watchers.
    pub events_dispatched: u64,
    /// Times the whole state was replaced, the first sync included.
    pub relists: u64,
    /// Upstream streams that broke instead of ending.
    pub cuts: u64,
    /// Upstream frames or lists that made no sense.
    pub malformed: u64,
    /// Freshness probes sent.
    pub probes: u64,
    /// Fence watches opened.
    pub fences: u64,
    /// Watchers ended because their unread events were forgotten.
    pub expired_watchers: u64,
}

impl Stats {
    /// Fills the counted part.
    pub(crate) fn count(&mut self, counters: &Counters) {
        self.events_received = counters.events_received.read();
        self.relists = counters.relists.read();
        self.cuts = counters.cuts.read();
        self.malformed = counters.malformed.read();
        self.probes = counters.probes.read();
        self.fences = counters.fences.read();
        self.expired_watchers = counters.expired_watchers.read();
    }
}
