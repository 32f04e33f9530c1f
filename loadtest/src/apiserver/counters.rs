//! What reached this server: requests and open watches by verb and resource.
//!
//! Owns the numbers tests assert on and `/debug/requests` prints. Refuses to measure time.
//! Invariant: a request is counted once, after authentication, under the verb authorization saw.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::request::RequestInfo;
use super::resources::Resource;

/// What a number is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// API verb, or the lower-case method of a path.
    pub verb: String,
    /// API group; empty for core.
    pub group: String,
    /// Resource, with `/subresource`; for other paths the path.
    pub resource: String,
}

/// Numbers since the start.
#[derive(Debug, Default)]
pub struct Counters {
    requests: Mutex<BTreeMap<Key, u64>>,
    watches: Arc<Mutex<BTreeMap<(String, String), u64>>>,
}

/// Counts an open watch until it is dropped.
#[derive(Debug)]
pub struct OpenWatch {
    key: (String, String),
    watches: Arc<Mutex<BTreeMap<(String, String), u64>>>,
}

impl Counters {
    /// Counts a request.
    pub fn count(&self, info: &RequestInfo) {
        let resource = match (info.is_resource, info.subresource.as_str()) {
            (false, _) => info.path.clone(),
            (true, "") => info.resource.clone(),
            (true, subresource) => format!("{}/{subresource}", info.resource),
        };
        let key = Key {
            verb: info.verb.clone(),
            group: info.group.clone(),
            resource,
        };
        *self.requests.lock().entry(key).or_default() += 1;
    }

    /// Requests so far of a verb on a resource (`pods`, `nodes/status`).
    pub fn requests(&self, verb: &str, group: &str, resource: &str) -> u64 {
        let key = Key {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
        };
        self.requests.lock().get(&key).copied().unwrap_or(0)
    }

    /// All request counts.
    pub fn all_requests(&self) -> BTreeMap<Key, u64> {
        self.requests.lock().clone()
    }

    /// Watches open now on a resource.
    pub fn open_watches(&self, group: &str, resource: &str) -> u64 {
        let key = (group.to_owned(), resource.to_owned());
        self.watches.lock().get(&key).copied().unwrap_or(0)
    }

    /// Watches open now on all resources.
    pub fn all_open_watches(&self) -> u64 {
        self.watches.lock().values().sum()
    }

    /// Counts a watch until the answer is dropped.
    pub fn open_watch(&self, resource: &Resource) -> OpenWatch {
        let key = (resource.group.clone(), resource.resource.clone());
        *self.watches.lock().entry(key.clone()).or_default() += 1;
        OpenWatch {
            key,
            watches: Arc::clone(&self.watches),
        }
    }

    /// Everything as `/debug/requests` prints it.
    pub fn report(&self) -> Value {
        let requests: Vec<Value> = self
            .requests
            .lock()
            .iter()
            .map(|(key, count)| {
                json!({"verb": key.verb, "group": key.group, "resource": key.resource, "count": count})
            })
            .collect();
        let watches: Vec<Value> = self
            .watches
            .lock()
            .iter()
            .map(|((group, resource), open)| {
                json!({"group": group, "resource": resource, "open": open})
            })
            .collect();
        json!({"requests": requests, "watches": watches})
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        if let Some(open) = self.watches.lock().get_mut(&self.key) {
            *open = open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resources::Registry;

    #[test]
    fn a_watch_counts_as_open_until_it_is_dropped() {
        let counters = Counters::default();
        let pods = Registry::builtin().find("", "v1", "pods").unwrap();
        let watch = counters.open_watch(&pods);
        assert_eq!(counters.open_watches("", "pods"), 1);
        drop(watch);
        assert_eq!(counters.open_watches("", "pods"), 0);
    }
}
