//! Patches: JSON Patch, JSON Merge Patch and Kubernetes' strategic merge patch, on values.
//!
//! Owns what a patch does to a document and the texts of its errors. Refuses to know objects:
//! versions, defaults and immutable fields are the writer's business, and which list is keyed by
//! what comes from [`MergeKeys`].
//!
//! Invariant: a patch that fails leaves the caller's document alone, because it works on a copy.

mod strategic;

use serde_json::{Map, Value};

pub use strategic::{MergeKeys, strategic_merge};

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: a 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the document: a 422 with this text.
    #[error("{0}")]
    Unprocessable(String),
}

/// Applies a JSON Patch (RFC 6902).
///
/// # Errors
/// [`PatchError::Malformed`] for a patch that is none, [`PatchError::Unprocessable`] for an
/// operation that does not fit, in the words of the Go library kube-apiserver uses.
pub fn json_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(operations) = patch.as_array() else {
        let text = "json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        return Err(PatchError::Malformed(text.to_owned()));
    };
    let mut document = document.clone();
    for operation in operations {
        apply(&mut document, operation)?;
    }
    Ok(document)
}

/// Applies a JSON Merge Patch (RFC 7386): null deletes, objects merge, the rest replaces.
#[must_use]
pub fn merge(document: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut merged = document.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        if value.is_null() {
            merged.remove(key);
        } else {
            let before = merged.get(key).unwrap_or(&Value::Null);
            let after = self::merge(before, value);
            merged.insert(key.clone(), after);
        }
    }
    Value::Object(merged)
}

fn apply(document: &mut Value, operation: &Value) -> Result<(), PatchError> {
    let kind = operation["op"].as_str().unwrap_or_default();
    let path = operation["path"].as_str().unwrap_or_default();
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match kind {
        "add" => add(document, path, value()),
        "remove" => remove(document, path).map(drop),
        "replace" => replace(document, path, value()),
        "move" => {
            let from = operation["from"].as_str().unwrap_or_default();
            let moved = remove(document, from)?;
            add(document, path, moved)
        }
        "copy" => {
            let from = operation["from"].as_str().unwrap_or_default();
            let copied = document
                .pointer(from)
                .cloned()
                .ok_or_else(|| missing("copy", from))?;
            add(document, path, copied)
        }
        "test" => {
            let found = document.pointer(path).unwrap_or(&Value::Null);
            if *found == value() {
                return Ok(());
            }
            Err(PatchError::Unprocessable(format!(
                "testing value {path} failed: test failed"
            )))
        }
        other => Err(PatchError::Malformed(format!("Unexpected kind: {other}"))),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, key) = split(path).ok_or_else(|| missing("add", path))?;
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(key, value);
        }
        Some(Value::Array(list)) if key == "-" => list.push(value),
        Some(Value::Array(list)) => {
            let index = key.parse().ok().filter(|index| *index <= list.len());
            let index: usize = index.ok_or_else(|| bad_index("add", path))?;
            list.insert(index, value);
        }
        Some(_) | None => return Err(missing("add", path)),
    }
    Ok(())
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    let place = document.pointer_mut(path).ok_or_else(|| {
        PatchError::Unprocessable(format!(
            "replace operation does not apply: doc is missing key: {path}: missing value"
        ))
    })?;
    *place = value;
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (parent, key) = split(path).ok_or_else(|| missing("remove", path))?;
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&key).ok_or_else(|| {
            PatchError::Unprocessable(format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: \
                 missing value"
            ))
        }),
        Some(Value::Array(list)) => {
            let index = key.parse().ok().filter(|index| *index < list.len());
            let index: usize = index.ok_or_else(|| bad_index("remove", path))?;
            Ok(list.remove(index))
        }
        Some(_) | None => Err(missing("remove", path)),
    }
}

/// Parent pointer and unescaped last key.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, key) = path.rsplit_once('/')?;
    Some((parent, key.replace("~1", "/").replace("~0", "~")))
}

fn missing(operation: &str, path: &str) -> PatchError {
    PatchError::Unprocessable(format!(
        "{operation} operation does not apply: doc is missing path: \"{path}\": missing value"
    ))
}

fn bad_index(operation: &str, path: &str) -> PatchError {
    PatchError::Unprocessable(format!(
        "error in {operation} for path: '{path}': Unable to access invalid index: invalid index \
         referenced"
    ))
}

/// The members of a value that must be an object; empty for anything else.
fn members(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_deletes_by_null_and_replaces_lists() {
        let document = json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "keep": true});
        let patch = json!({"a": {"b": null, "d": {"e": null}}, "l": [3]});
        let merged = json!({"a": {"c": 2, "d": {}}, "l": [3], "keep": true});
        assert_eq!(merge(&document, &patch), merged);
    }

    #[test]
    fn json_patch_operations_apply_in_order() {
        let document = json!({"l": [1, 3], "m": {"a/b": 1}, "x": 1});
        let patch = json!([
            {"op": "test", "path": "/x", "value": 1},
            {"op": "add", "path": "/l/1", "value": 2},
            {"op": "add", "path": "/l/-", "value": 4},
            {"op": "replace", "path": "/m/a~1b", "value": 2},
            {"op": "move", "from": "/x", "path": "/y"},
            {"op": "copy", "from": "/y", "path": "/z"},
            {"op": "remove", "path": "/l/0"},
        ]);
        let patched = json!({"l": [2, 3, 4], "m": {"a/b": 2}, "y": 1, "z": 1});
        assert_eq!(json_patch(&document, &patch), Ok(patched));
    }

    #[test]
    fn json_patch_that_does_not_fit_is_unprocessable() {
        let document = json!({"l": []});
        for operation in [
            json!({"op": "remove", "path": "/nope"}),
            json!({"op": "replace", "path": "/nope", "value": 1}),
            json!({"op": "add", "path": "/no/where", "value": 1}),
            json!({"op": "add", "path": "/l/7", "value": 1}),
            json!({"op": "test", "path": "/l", "value": 1}),
        ] {
            let error = json_patch(&document, &json!([operation])).unwrap_err();
            assert!(matches!(error, PatchError::Unprocessable(_)), "{error}");
        }
        assert!(matches!(
            json_patch(&document, &json!({})),
            Err(PatchError::Malformed(_))
        ));
    }
}
