//! When an object may go: finalizers, grace periods, and the two-step deletion of namespaces.

use serde_json::{Value, json};

/// What a deletion comes to.
pub(super) enum Deletion {
    /// Nothing holds the object.
    Now,
    /// It is already waiting for its finalizers.
    AlreadyPending,
    /// It has to wait; this is what it looks like meanwhile.
    Pending(Value),
}

/// Decides a DELETE.
pub(super) fn delete(storage: &str, current: &Value, grace_seconds: Option<i64>) -> Deletion {
    let held = has_finalizers(storage, current);
    let metadata = &current["metadata"];
    let pending = metadata.get("deletionTimestamp").is_some();
    let grace = grace_seconds.unwrap_or(0).max(0);
    if !held && grace == 0 {
        return Deletion::Now;
    }
    if pending {
        let left = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if grace >= left {
            return Deletion::AlreadyPending;
        }
    }
    let mut value = current.clone();
    let stamp = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
    let stamp = stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let generation = metadata["generation"].as_i64().unwrap_or(0);
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.insert("deletionTimestamp".to_owned(), json!(stamp));
        if storage != "namespaces" {
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        }
        if generation > 0 && !pending {
            metadata.insert("generation".to_owned(), json!(generation + 1));
        }
    }
    if storage == "namespaces" {
        value["status"]["phase"] = json!("Terminating");
    }
    Deletion::Pending(value)
}

/// Whether an update of an object in deletion is its end: nothing holds it any more.
pub(super) fn ends(storage: &str, current: &Value, new: &Value) -> bool {
    let metadata = &current["metadata"];
    let waiting = metadata.get("deletionTimestamp").is_some();
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    waiting && grace == 0 && has_finalizers(storage, current) && !has_finalizers(storage, new)
}

fn has_finalizers(storage: &str, value: &Value) -> bool {
    let filled = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    filled(&value["metadata"]["finalizers"])
        || (storage == "namespaces" && filled(&value["spec"]["finalizers"]))
}
