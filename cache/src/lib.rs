//! The watch cache of one resource in one encoding: one upstream watch in, any number of client
//! watches out.
//!
//! ```text
//!  apiserver ──chunks──► ListerWatcher (the caller's; this crate opens no socket)
//!                            │
//!                        Reflector      list, watch, resume, relist; proves freshness
//!                            │  encoding: frames cut, metadata lifted, bytes kept as received
//!                            ▼
//!                         Writer        the only way in; the resource version only grows
//!              ┌─────────────┴──────────────┐
//!              ▼                            ▼
//!            store                       history                recent events, for all threads
//!        objects by key                     │ each event once per worker
//!              │                 ┌──────────┴──────────┐
//!              ▼                 ▼                     ▼
//!          Snapshot        lane of a worker      lane of another  its newest events, who waits
//!              │                 │ wake                           for which key; frames
//!              ▼                 ▼
//!        GET, LIST, pages    Watcher: a cursor; reads at its client's pace ──frames──► client
//! ```
//!
//! [`WatchCache::new`] makes both ends. The caller runs [`Reflector::run`] with the [`Writer`] as a
//! task it owns, and answers requests from the [`WatchCache`]: [`WatchCache::snapshot`] for reads
//! at any version, [`WatchCache::wait_until_fresh`] before reads not older than one,
//! [`WatchCache::consistent`] for reads that must see everything written before them,
//! [`WatchCache::watch`] for streams. Where several threads own watches, each runs a [`Dispatcher`].
//!
//! What holds: versions never go back; no event is lost, doubled or reordered, and a stream that
//! cannot keep this ends; a bookmark at x follows every event up to x; objects are the apiserver's
//! bytes; memory is bounded by [`Options`]. What it refuses: sockets, tasks of its own, identities,
//! and any guess about state it was not told.

mod allocation;
pub mod encoding;
mod error;
mod event;
mod fields;
mod history;
mod interest;
mod lane;
mod metrics;
mod object;
mod observer;
mod recent;
mod reflector;
mod resource;
mod resource_version;
mod retention;
pub mod selector;
mod store;
#[cfg(test)]
mod testing;
mod view;
mod waiting;
mod watch_cache;
mod watcher;
mod watchers;
mod window;
mod worker;

pub use error::{CacheError, NotFresh, OverBudget};
pub use fields::FieldSet;
pub use interest::Selection;
pub use metrics::Stats;
pub use object::Object;
pub use observer::Observer;
pub use reflector::{
    ListRequest, ListerWatcher, Reflector, ReflectorOptions, ReflectorStatus, UpstreamError,
    WatchRequest,
};
pub use resource::Resource;
pub use resource_version::{InvalidResourceVersion, ResourceVersion};
pub use store::{Snapshot, StateId};
pub use watch_cache::{Options, WatchCache, Writer};
pub use watcher::{WatchStart, Watcher};
pub use worker::{Dispatcher, Entered, Workers};
