//! Leases of etcd, as kube-apiserver hands them out to events: many keys share one, and die in one
//! revision.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// Keys a lease carries at most.
const KEYS_MAX: usize = 1000;
/// Longest time a lease is handed out again.
const REUSE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Lease number → when it ends and what it holds.
    leases: BTreeMap<u64, (Instant, HashSet<String>)>,
    held_by: HashMap<String, u64>,
    newest: u64,
}

impl Leases {
    /// Puts a key under a lease of at least `ttl`, the newest one if that ends soon enough.
    pub(super) fn attach(&mut self, key: &str, ttl: Duration) {
        let now = Instant::now();
        let reuse = (ttl / 20).min(REUSE_MAX);
        let fits = self.leases.get(&self.newest).is_some_and(|(end, keys)| {
            now + ttl < *end && now + ttl + reuse >= *end && keys.len() < KEYS_MAX
        });
        if !fits {
            self.newest += 1;
            self.leases
                .insert(self.newest, (now + ttl + reuse, HashSet::new()));
        }
        if let Some(old) = self.held_by.insert(key.to_owned(), self.newest)
            && old != self.newest
            && let Some((_, keys)) = self.leases.get_mut(&old)
        {
            keys.remove(key);
        }
        if let Some((_, keys)) = self.leases.get_mut(&self.newest) {
            keys.insert(key.to_owned());
        }
    }

    pub(super) fn detach(&mut self, key: &str) {
        if let Some(lease) = self.held_by.remove(key)
            && let Some((_, keys)) = self.leases.get_mut(&lease)
        {
            keys.remove(key);
        }
    }

    /// Takes the keys of every lease that has ended, one set per lease, each in key order.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Vec<String>> {
        let ended: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, (end, _))| *end <= now)
            .map(|(lease, _)| *lease)
            .collect();
        let mut sets = Vec::new();
        for lease in ended {
            if let Some((_, keys)) = self.leases.remove(&lease) {
                let mut keys: Vec<String> = keys.into_iter().collect();
                keys.sort_unstable();
                for key in &keys {
                    self.held_by.remove(key);
                }
                sets.push(keys);
            }
        }
        sets
    }
}
