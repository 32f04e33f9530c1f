//! What all threads share of a cache's past: the window, and up to where it is complete.
//!
//! Owns the version up to which the window is complete and the generation of the state. The writer
//! appends under its lock; readers come here only to begin, or when what they have not read is no
//! longer in the [`View`](crate::view::View) of their own thread. Whatever it learns it tells the
//! lanes in the same order under the same lock, so a lane is a prefix of it at every moment.

use std::sync::Arc;

use crate::error::CacheError;
use crate::event::{Change, Event};
use crate::resource_version::ResourceVersion;
use crate::window::{Forgotten, Sequence, Window};

/// See the module text.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) window: Window,
    resource_version: ResourceVersion,
    generation: u32,
    ready: bool,
}

/// Where a history ends, or where what a lane was told of it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    /// Every event up to this version came before.
    pub(crate) resource_version: ResourceVersion,
    /// Grows with each replacement of the state; nobody reads on across one.
    pub(crate) generation: u32,
    /// Sequence of the oldest event that was kept.
    pub(crate) first: Sequence,
    /// Sequence of the event to come.
    pub(crate) end: Sequence,
}

impl History {
    pub(crate) fn new(window: Window) -> Self {
        Self {
            window,
            resource_version: ResourceVersion::default(),
            generation: 0,
            ready: false,
        }
    }

    pub(crate) fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(crate) fn edge(&self) -> Edge {
        Edge {
            resource_version: self.resource_version,
            generation: self.generation,
            first: self.window.first(),
            end: self.window.end(),
        }
    }

    /// The answer to a start below the window.
    pub(crate) fn expired(&self, requested: ResourceVersion) -> CacheError {
        let oldest = ResourceVersion::new(self.window.floor().get().saturating_add(1));
        CacheError::Expired { requested, oldest }
    }

    /// Whether somebody may start after `start`.
    pub(crate) fn check_start(&self, start: ResourceVersion) -> Result<(), CacheError> {
        if !self.ready {
            return Err(CacheError::NotReady);
        }
        if start < self.window.floor() {
            return Err(self.expired(start));
        }
        Ok(())
    }

    /// Appends a change.
    pub(crate) fn push(&mut self, resource_version: ResourceVersion, change: Change) -> Arc<Event> {
        let event = self.window.push(resource_version, change);
        self.advance(resource_version);
        event
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
    pub(crate) fn replace(&mut self, resource_version: ResourceVersion) -> Forgotten {
        self.advance(resource_version);
        self.generation = self.generation.wrapping_add(1);
        self.ready = true;
        self.window.restart(resource_version)
    }

    /// Nothing is served until the next [`Self::replace`].
    pub(crate) fn close(&mut self) -> Forgotten {
        self.generation = self.generation.wrapping_add(1);
        self.ready = false;
        self.window.restart(self.resource_version)
    }

    /// Forgets the version of a closed history.
    pub(crate) fn start_over(&mut self) {
        assert!(!self.ready, "only a closed history starts over");
        self.resource_version = ResourceVersion::default();
        drop(self.window.restart(self.resource_version)); // empty since it was closed
    }
}
