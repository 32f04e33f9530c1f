//! The per-resource watch cache.

pub mod encoding;
mod error;
mod event;
mod fields;
mod freshness;
mod metrics;
mod object;
mod reflector;
mod resource;
mod resource_version;
pub mod selector;
mod store;
mod watch_cache;
mod watcher;
mod watchers;
mod window;

pub use fields::FieldSet;
pub use object::Object;
pub use resource::Resource;
pub use resource_version::{InvalidResourceVersion, ResourceVersion};
