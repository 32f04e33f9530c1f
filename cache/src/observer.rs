//! Somebody who must know of a change before any reader does.
//!
//! Owns the trait and the order it promises. It refuses to be a way to read: what an observer is
//! told is the object and no more, and it is told under the writer's locks.
//!
//! Invariant: what an observer was told, taken together, is what readers see or are about to see:
//! an object is shown before its event, and before the snapshot and the list that hold it.

use std::fmt::Debug;

use crate::object::Object;

/// Hears of every object that comes into a cache or leaves it, before readers do.
///
/// Called by the one writer, in order, while nobody gets a snapshot: an implementation does a few
/// microseconds of work and must not ask the cache anything.
pub trait Observer: Debug + Send + Sync {
    /// An object is new, or in place of the one of its key. While the cache is being filled this
    /// comes long before the cache is ready.
    fn upserted(&self, object: &Object);

    /// An object is gone. What is passed is the last state readers were shown.
    fn removed(&self, object: &Object);

    /// Nothing is known any more: the cache was closed, or is filled from the beginning.
    fn closed(&self);
}
