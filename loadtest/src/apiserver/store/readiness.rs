//! Which watch caches are filled.
//!
//! The caches of built-in resources are filled before the server is ready, as from 1.36. That of a
//! version of a custom resource begins with the first request for it, so the very first reads find
//! it empty. Owns when each began. Refuses to know what a reader is told then.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Resource;

/// When caches of custom resources began and which are filled.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// By storage, then version.
    started: HashMap<(String, String), Cache>,
}

#[derive(Debug)]
struct Cache {
    since: Instant,
    filled_at: Instant,
    filled: bool,
}

impl Readiness {
    /// Begins the cache of a resource that is filled after `takes`; whether it is the first of its
    /// storage.
    pub(super) fn begin(&mut self, resource: &Resource, takes: Duration) -> bool {
        let key = key(resource);
        if self.started.contains_key(&key) {
            return false;
        }
        let is_first = self.started.keys().all(|(storage, _)| *storage != key.0);
        let since = Instant::now();
        let cache = Cache {
            since,
            filled_at: since + takes,
            filled: false,
        };
        self.started.insert(key, cache);
        is_first
    }

    /// For how long a cache that began has not been filled. One that never began is not asked.
    pub(super) fn of(&mut self, resource: &Resource, held: bool) -> Result<(), Duration> {
        let Some(cache) = self.started.get_mut(&key(resource)) else {
            return Ok(());
        };
        let now = Instant::now();
        cache.filled |= !held && now >= cache.filled_at;
        if cache.filled {
            Ok(())
        } else {
            Err(now - cache.since)
        }
    }

    pub(super) fn forget(&mut self, resource: &Resource) {
        self.started.remove(&key(resource));
    }
}

fn key(resource: &Resource) -> (String, String) {
    (resource.storage.clone(), resource.version.clone())
}
