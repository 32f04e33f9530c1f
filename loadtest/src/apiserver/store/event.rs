//! One change, shared by history and all watchers, with its frames remembered.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::object::{RenderKey, Stored};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It came to be.
    Created,
    /// It changed.
    Updated,
    /// It is gone.
    Removed,
}

/// What a watcher is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// `ADDED`.
    Added,
    /// `MODIFIED`.
    Modified,
    /// `DELETED`.
    Deleted,
    /// `BOOKMARK`.
    Bookmark,
    /// `ERROR`.
    Error,
}

impl EventType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// Identifies a frame of an event: the encoding and the type a watcher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameKey {
    /// The object's encoding.
    pub render: RenderKey,
    /// The type.
    pub event_type: EventType,
    /// Whether the frame is for a WebSocket (no length prefix).
    pub bare: bool,
}

/// A change at one revision.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The revision.
    pub resource_version: u64,
    /// The new object; of a removal the last content under the revision of the removal.
    pub object: Arc<Stored>,
    /// The object before, absent for a creation.
    pub previous: Option<Arc<Stored>>,
    /// When it was applied, for the age of the window.
    pub at: Instant,
    left: OnceLock<Arc<Stored>>,
    frames: Mutex<Vec<(FrameKey, Bytes)>>,
}

impl Event {
    pub(super) fn new(kind: EventKind, object: Arc<Stored>, previous: Option<Arc<Stored>>) -> Self {
        Self {
            kind,
            resource_version: object.resource_version,
            object,
            previous,
            at: Instant::now(),
            left: OnceLock::new(),
            frames: Mutex::default(),
        }
    }

    /// What a watcher with this filter sees, if anything. An update out of its view is a deletion
    /// that shows the previous object under the update's resource version.
    pub fn seen_by(&self, passes: impl Fn(&Stored) -> bool) -> Option<(EventType, &Arc<Stored>)> {
        let before = self.previous.as_ref().is_some_and(|object| passes(object));
        match self.kind {
            EventKind::Removed => before.then_some((EventType::Deleted, &self.object)),
            EventKind::Created | EventKind::Updated => match (before, passes(&self.object)) {
                (false, true) => Some((EventType::Added, &self.object)),
                (true, true) => Some((EventType::Modified, &self.object)),
                (true, false) => Some((EventType::Deleted, self.left_behind())),
                (false, false) => None,
            },
        }
    }

    fn left_behind(&self) -> &Arc<Stored> {
        let previous = self.previous.as_ref().unwrap_or(&self.object);
        self.left
            .get_or_init(|| Arc::new(previous.at(self.resource_version)))
    }

    /// A frame, made once and then shared.
    pub fn frame<E>(
        &self,
        key: FrameKey,
        build: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let mut frames = self.frames.lock();
        if let Some((_, bytes)) = frames.iter().find(|(known, _)| *known == key) {
            return Ok(bytes.clone());
        }
        let bytes = build()?;
        frames.push((key, bytes.clone()));
        Ok(bytes)
    }
}
