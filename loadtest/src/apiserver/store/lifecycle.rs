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
    /// It is marked first and then goes at once: a kind with grace periods, given none.
    Marked(Value),
}

/// Decides a DELETE. `grace_seconds` is `None` for kinds without grace periods.
pub(super) fn delete(storage: &str, current: &Value, grace_seconds: Option<i64>) -> Deletion {
    let held = has_finalizers(storage, current);
    let metadata = &current["metadata"];
    let pending = metadata.get("deletionTimestamp").is_some();
    let grace = match grace_seconds {
        None if !held => return Deletion::Now,
        None if pending => return Deletion::AlreadyPending,
        None => 0,
        Some(seconds) => seconds.max(0),
    };
    let left = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if pending && grace >= left {
        // Whatever made it wait is gone: only the removal is left.
        return if held || grace > 0 {
            Deletion::AlreadyPending
        } else {
            Deletion::Now
        };
    }
    let value = marked(storage, current, grace, pending);
    if held || grace > 0 {
        Deletion::Pending(value)
    } else {
        Deletion::Marked(value)
    }
}

fn marked(storage: &str, current: &Value, grace: i64, pending: bool) -> Value {
    let mut value = current.clone();
    let stamp = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
    let stamp = stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let generation = value["metadata"]["generation"].as_i64().unwrap_or(0);
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
    value
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
