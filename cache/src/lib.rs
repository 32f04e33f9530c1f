//! The per-resource watch cache.

pub mod encoding;
mod error;
mod event;
mod fields;
mod freshness;
mod interest;
mod metrics;
mod object;
mod reflector;
mod resource;
mod resource_version;
pub mod selector;
mod store;
mod view;
mod watch_cache;
mod watcher;
mod watchers;
mod window;

pub use error::{CacheError, NotFresh, OverBudget};
pub use fields::FieldSet;
pub use interest::Selection;
pub use metrics::Stats;
pub use object::Object;
pub use reflector::{
    ListRequest, ListerWatcher, Reflector, ReflectorOptions, ReflectorStatus, UpstreamError,
    WatchRequest,
};
pub use resource::Resource;
pub use resource_version::{InvalidResourceVersion, ResourceVersion};
pub use store::Snapshot;
pub use watch_cache::{Options, WatchCache, Writer};
pub use watcher::{WatchStart, Watcher};
