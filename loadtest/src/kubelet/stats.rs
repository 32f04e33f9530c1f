//! Numbers of a fleet of kubelets.
//!
//! Owns counters that every kubelet adds to, and bounded logs of what went wrong. Refuses judgement:
//! which number must be zero is the scenario's business.
//! Invariant: adding never waits and never grows: logs keep their first lines and count the rest.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::view::Rule;
use crate::measure::Latency;

/// Lines a log keeps.
const LINES_MAX: usize = 20;

/// Counters since the start, and gauges of now.
#[derive(Debug, Default)]
pub struct Stats {
    /// Kubelets that finished their start.
    pub ready: AtomicU64,
    /// Watches open now.
    pub watches: AtomicU64,
    /// Initial events received.
    pub initial_events: AtomicU64,
    /// Live events received.
    pub events: AtomicU64,
    /// Bookmarks received.
    pub bookmarks: AtomicU64,
    /// Bytes of watch frames received.
    pub bytes: AtomicU64,
    /// Watches that went on from a known version.
    pub resumes: AtomicU64,
    /// Watches that had to start again with a list.
    pub relists: AtomicU64,
    /// Those of them that a faultless server causes too, see [`Counts`](super::reflector::Counts).
    pub excused: AtomicU64,
    /// Watches that failed, whatever the reason (a clean end is none).
    pub watch_failures: AtomicU64,
    /// Unary requests.
    pub calls: AtomicU64,
    /// Unary requests without an answer: connection lost, or too late.
    pub calls_lost: AtomicU64,
    /// Lease renewals that succeeded.
    pub renewals: AtomicU64,
    /// Pods reported as running.
    pub pods_started: AtomicU64,
    /// Pods deleted at the end of their grace.
    pub pods_finished: AtomicU64,
    /// From sending a write to its event, one value per delivered event.
    pub latency: Latency,
    /// Unary requests that were answered.
    pub call_latency: Latency,
    /// Answers that a healthy server would not give.
    pub errors: Log,
    /// Broken rules of the watch protocol.
    pub violations: Log,
    rules: Mutex<[u64; 5]>,
}

impl Stats {
    /// Counts a broken rule.
    pub fn violation(&self, rule: Rule, text: String) {
        self.rules.lock()[rule as usize] += 1;
        self.violations.add(format!("{rule}: {text}"));
    }

    /// Violations of one rule.
    #[must_use]
    pub fn violations_of(&self, rule: Rule) -> u64 {
        self.rules.lock()[rule as usize]
    }
}

/// The first lines, and how many there were.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Vec<String>>,
    count: AtomicU64,
}

impl Log {
    /// Adds a line; beyond the first twenty it is only counted.
    pub fn add(&self, line: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut lines = self.lines.lock();
        if lines.len() < LINES_MAX {
            lines.push(line);
        }
    }

    /// Lines ever added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}
