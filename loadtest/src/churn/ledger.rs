//! The ledger: every write that the server acknowledged.
//!
//! Owns the versions of writes by resource. Refuses bodies: what an object should look like is told
//! by a fresh list.
//! Invariant: a resource that is declared complete is written by the churn alone, so its ledger is
//! the whole truth about its events.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use serde_json::Value;

use crate::kubelet::view::Digest;

/// Writes kept per resource; beyond it the resource is no longer complete.
const WRITES_MAX: usize = 1_000_000;

/// One acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Resource.
    pub resource: &'static str,
    /// `namespace/name`, or `name`.
    pub key: String,
    /// The version it made.
    pub resource_version: u64,
}

/// All writes.
#[derive(Debug, Default)]
pub struct Ledger {
    writes: Mutex<BTreeMap<&'static str, BTreeMap<u64, String>>>,
    complete: Mutex<BTreeSet<&'static str>>,
}

impl Ledger {
    /// Declares that nobody else writes a resource.
    pub fn complete(&self, resource: &'static str) {
        self.complete.lock().insert(resource);
    }

    /// Whether nobody else writes a resource.
    #[must_use]
    pub fn is_complete(&self, resource: &str) -> bool {
        self.complete.lock().contains(resource)
    }

    /// Adds a write.
    pub fn note(&self, write: Write) {
        let mut writes = self.writes.lock();
        let of_resource = writes.entry(write.resource).or_default();
        if of_resource.len() == WRITES_MAX {
            self.complete.lock().remove(write.resource);
            return;
        }
        of_resource.insert(write.resource_version, write.key);
    }

    /// Adds the write that an answer tells of; one without a version is not a write.
    pub fn note_object(&self, resource: &'static str, object: &Value) {
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let Ok(resource_version) = text("resourceVersion").parse() else {
            return;
        };
        let key = match text("namespace") {
            "" => text("name").to_owned(),
            namespace => format!("{namespace}/{}", text("name")),
        };
        self.note(Write {
            resource,
            key,
            resource_version,
        });
    }

    /// Digest of the writes to a resource after a version, up to another.
    #[must_use]
    pub fn digest(&self, resource: &str, after: u64, up_to: u64) -> Digest {
        let mut digest = Digest::default();
        if let Some(writes) = self.writes.lock().get(resource)
            && after < up_to
        {
            writes
                .range(after + 1..=up_to)
                .for_each(|(version, _)| digest.add(*version));
        }
        digest
    }

    /// Writes so far, by resource.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let writes = self.writes.lock();
        writes
            .iter()
            .map(|(resource, writes)| (*resource, writes.len() as u64))
            .collect()
    }
}
