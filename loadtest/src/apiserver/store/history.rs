//! The window of a watch cache: a ring that doubles while its events are young and halves when they
//! are old.
//!
//! As `watch_cache_history.go` of 1.36: capacity 100 at first; full with its oldest event younger
//! than the window's age, it doubles; when its newest quarter spans more than that age, it halves.
//! A watch may start after R when R ≥ oldest − 1, where oldest is the RV of the oldest event kept,
//! or the RV of the list + 1 while none was dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;
use super::{Profile, StoreError};

#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    capacity: usize,
    listed_at: u64,
    dropped: bool,
    /// Keeps everything until it is compacted: etcd's own history, for resources without a cache.
    unbounded: bool,
    compacted: u64,
}

impl History {
    pub(super) fn new(listed_at: u64, cached: bool, profile: &Profile) -> Self {
        Self {
            events: VecDeque::new(),
            capacity: profile.history_events,
            listed_at,
            dropped: false,
            unbounded: !cached,
            compacted: 0,
        }
    }

    pub(super) fn listed_at(&self) -> u64 {
        self.listed_at
    }

    pub(super) fn push(&mut self, event: Arc<Event>, profile: &Profile) {
        if self.unbounded {
            if self.events.len() >= profile.versions_max
                && let Some(oldest) = self.events.pop_front()
            {
                self.compacted = self.compacted.max(oldest.resource_version + 1);
            }
            self.events.push_back(event);
            return;
        }
        self.resize(&event, profile);
        while self.events.len() >= self.capacity {
            self.events.pop_front();
            self.dropped = true;
        }
        self.events.push_back(event);
    }

    fn resize(&mut self, event: &Event, profile: &Profile) {
        let age = |old: &Arc<Event>| event.at.saturating_duration_since(old.at);
        let full = self.events.len() >= self.capacity;
        let floor = profile.history_events.min(100);
        if full
            && self
                .events
                .front()
                .is_some_and(|old| age(old) < profile.history_age)
        {
            self.capacity = (self.capacity * 2).min(profile.history_events_max);
        } else if full {
            let quarter = self.events.len() - self.capacity / 4;
            let quiet = self
                .events
                .get(quarter)
                .is_some_and(|old| age(old) > profile.history_age);
            if quiet {
                self.capacity = (self.capacity / 2).max(floor);
            }
        }
    }

    pub(super) fn compact(&mut self, revision: u64) {
        if self.unbounded {
            self.compacted = self.compacted.max(revision);
            while self
                .events
                .front()
                .is_some_and(|e| e.resource_version < revision)
            {
                self.events.pop_front();
            }
        }
    }

    /// The events after a resource version.
    pub(super) fn after(&self, requested: u64) -> Result<Vec<Arc<Event>>, StoreError> {
        if self.unbounded {
            if requested + 1 < self.compacted {
                return Err(StoreError::Compacted);
            }
        } else {
            let oldest = match self.events.front() {
                Some(event) if self.dropped => event.resource_version,
                Some(_) | None => self.listed_at + 1,
            };
            if requested < oldest - 1 {
                return Err(StoreError::Expired {
                    requested,
                    oldest: oldest - 1,
                });
            }
        }
        let start = self
            .events
            .partition_point(|e| e.resource_version <= requested);
        Ok(self.events.range(start..).cloned().collect())
    }
}
