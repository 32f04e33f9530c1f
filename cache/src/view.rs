//! What a worker sees of a cache: window, index and parked watchers behind one lock.
//!
//! Owns the version up to which this view is complete and the generation of its state. Reading,
//! registering and marking happen under one lock, which is what makes "dry at version x" a fact: a
//! bookmark may carry x because every event up to x was read before. There is one view per cache
//! today; giving each worker thread its own changes nothing but how many views the writer visits.

use std::sync::Arc;
use std::task::Waker;

use crate::error::CacheError;
use crate::event::{Change, Event};
use crate::interest::Interest;
use crate::resource_version::ResourceVersion;
use crate::watchers::{SlotId, Watchers};
use crate::window::{Forgotten, Window};

/// One reader's place in a view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) slot: SlotId,
    /// The generation the seat was taken in.
    generation: u32,
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Events were copied.
    Events,
    /// Everything up to this version was read.
    Dry(ResourceVersion),
    /// Unread events were forgotten: this reader was too slow.
    Lost,
    /// The state was replaced; nobody reads on across that.
    Replaced,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) window: Window,
    pub(crate) watchers: Watchers,
    resource_version: ResourceVersion,
    generation: u32,
    ready: bool,
    /// Frames readers reported as handed on.
    pub(crate) delivered: u64,
}

impl View {
    pub(crate) fn new(trigger: Option<usize>, window: Window) -> Self {
        Self {
            window,
            watchers: Watchers::new(trigger),
            resource_version: ResourceVersion::default(),
            generation: 0,
            ready: false,
            delivered: 0,
        }
    }

    pub(crate) fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The answer to a start below the window.
    pub(crate) fn expired(&self, requested: ResourceVersion) -> CacheError {
        let oldest = ResourceVersion::new(self.window.floor().get().saturating_add(1));
        CacheError::Expired { requested, oldest }
    }

    /// Appends a change; the wakers of those who may care are for the caller to wake, after the
    /// lock.
    pub(crate) fn push(
        &mut self,
        resource_version: ResourceVersion,
        change: Change,
        wake: &mut Vec<Waker>,
    ) {
        let (event, sequence) = self.window.push(resource_version, change);
        self.watchers.mark(&event, sequence, wake);
        self.advance(resource_version);
    }

    /// Nothing happened up to `resource_version`.
    pub(crate) fn advance(&mut self, resource_version: ResourceVersion) {
        assert!(
            resource_version >= self.resource_version,
            "versions never go back"
        );
        self.resource_version = resource_version;
        self.window.trim();
    }

    /// The state was replaced: every seat ends.
    pub(crate) fn replace(
        &mut self,
        resource_version: ResourceVersion,
        wake: &mut Vec<Waker>,
    ) -> Forgotten {
        self.advance(resource_version);
        self.end(wake);
        self.ready = true;
        self.window.restart(resource_version)
    }

    /// Nothing is served until the next [`Self::replace`].
    pub(crate) fn close(&mut self, wake: &mut Vec<Waker>) -> Forgotten {
        self.end(wake);
        self.ready = false;
        self.window.restart(self.resource_version)
    }

    /// Forgets the version of a closed view.
    pub(crate) fn start_over(&mut self) {
        assert!(!self.ready, "only a closed view starts over");
        self.resource_version = ResourceVersion::default();
        drop(self.window.restart(self.resource_version)); // empty since it was closed
    }

    fn end(&mut self, wake: &mut Vec<Waker>) {
        self.generation = self.generation.wrapping_add(1);
        self.watchers.wake_all(wake);
    }

    /// Takes a seat after `start`.
    pub(crate) fn sit(
        &mut self,
        interest: &Interest,
        start: ResourceVersion,
    ) -> Result<Seat, CacheError> {
        if !self.ready {
            return Err(CacheError::NotReady);
        }
        if start < self.window.floor() {
            return Err(self.expired(start));
        }
        let unread = self.window.next(interest, self.window.after(start));
        let slot = self.watchers.register(interest, unread);
        Ok(Seat {
            slot,
            generation: self.generation,
        })
    }

    /// Copies up to `max` unread events; on a dry seat parks the waker instead.
    pub(crate) fn read(
        &mut self,
        seat: Seat,
        interest: &Interest,
        (max, into): (usize, &mut Vec<Arc<Event>>),
        waker: &Waker,
    ) -> Reading {
        if seat.generation != self.generation {
            return Reading::Replaced;
        }
        if self.window.is_over() {
            self.window.trim(); // readers built frames since the last event
        }
        let Some(unread) = self.watchers.unread(seat.slot) else {
            self.watchers.park(seat.slot, waker);
            return Reading::Dry(self.resource_version);
        };
        if unread < self.window.first() {
            return Reading::Lost;
        }
        let next = self.window.collect(interest, unread, max, into);
        self.watchers.set_unread(seat.slot, next);
        Reading::Events
    }
}
