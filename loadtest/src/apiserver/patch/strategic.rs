//! Strategic merge patch: lists of objects merge by key, and directives say when not to.
//!
//! Owns the directives `$patch`, `$retainKeys`, `$setElementOrder/…` and
//! `$deleteFromPrimitiveList/…`, as apimachinery `strategicpatch/patch.go`, 1.36, and the table of
//! merge keys. Lists without a merge key are replaced.
//!
//! Invariant: no directive is ever stored.

use serde_json::{Map, Value};

use super::{PatchError, members};

/// Says how the lists of one kind merge.
#[derive(Clone, Copy, Debug)]
pub struct MergeKeys<'a> {
    kind: &'a str,
}

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListStrategy {
    Replace,
    ByKey(&'static str),
    Primitive,
}

impl<'a> MergeKeys<'a> {
    /// The merge keys of a built-in kind.
    #[must_use]
    pub fn of(kind: &'a str) -> Self {
        Self { kind }
    }

    /// The patch strategy of the list `field` inside `parent` (the field that holds it).
    fn of_list(self, parent: &str, field: &str) -> ListStrategy {
        let key = match (parent, field) {
            ("metadata", "finalizers") => return ListStrategy::Primitive,
            ("metadata", "ownerReferences") => "uid",
            ("containers" | "initContainers" | "ephemeralContainers", "ports") => "containerPort",
            ("spec", "ports") if self.kind == "Service" => "port",
            ("spec", "finalizers") if self.kind != "Namespace" => return ListStrategy::Primitive,
            (_, "containers" | "initContainers" | "ephemeralContainers") => "name",
            (_, "env" | "imagePullSecrets" | "resourceClaims" | "schedulingGates") => "name",
            (_, "volumes") => "name",
            (_, "volumeMounts") => "mountPath",
            (_, "volumeDevices") => "devicePath",
            (_, "hostAliases") | ("status", "podIPs" | "hostIPs") => "ip",
            (_, "topologySpreadConstraints") => "topologyKey",
            ("status", "resourceClaimStatuses") => "name",
            ("status", "conditions") => "type",
            ("status", "addresses") if self.kind == "Node" => "type",
            ("", "secrets") if self.kind == "ServiceAccount" => "name",
            ("", "webhooks") => "name",
            ("spec", "drivers") if self.kind == "CSINode" => "name",
            _ => return ListStrategy::Replace,
        };
        ListStrategy::ByKey(key)
    }
}

/// Applies a strategic merge patch.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is no object, names an unknown `$patch` directive or
/// lacks a merge key.
pub fn strategic_merge(
    document: &Value,
    patch: &Value,
    keys: MergeKeys<'_>,
) -> Result<Value, PatchError> {
    let Some(patch) = patch.as_object() else {
        return Err(PatchError::Malformed(
            "the patch is not an object".to_owned(),
        ));
    };
    let merged = merge_map(members(document), patch, "", keys)?;
    Ok(Value::Object(merged))
}

const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

fn merge_map(
    mut document: Map<String, Value>,
    patch: &Map<String, Value>,
    parent: &str,
    keys: MergeKeys<'_>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let kept = patch.iter().filter(|(key, _)| *key != "$patch");
            return Ok(kept
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect());
        }
        Some("delete") => return Ok(Map::new()),
        Some("merge") | None => {}
        Some(other) => {
            let text = format!("Unknown patch type found: {other}");
            return Err(PatchError::Malformed(text));
        }
    }
    if let Some(Value::Array(retained)) = patch.get("$retainKeys") {
        document.retain(|key, _| retained.iter().any(|retained| retained == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE) {
            delete_primitives(&mut document, field, value);
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        if value.is_null() {
            document.remove(key);
            continue;
        }
        let before = document.remove(key);
        let order = patch.get(&format!("{ORDER}{key}"));
        let after = merge_value(before, value, order, (parent, key), keys)?;
        document.insert(key.clone(), after);
    }
    for (key, order) in patch {
        // An order without a patch of the list only sorts what is there.
        let Some(field) = key.strip_prefix(ORDER) else {
            continue;
        };
        if !patch.contains_key(field)
            && let Some(Value::Array(list)) = document.get_mut(field)
        {
            let strategy = keys.of_list(parent, field);
            sort_by_order(list, order, strategy);
        }
    }
    Ok(document)
}

fn merge_value(
    before: Option<Value>,
    patch: &Value,
    order: Option<&Value>,
    (parent, field): (&str, &str),
    keys: MergeKeys<'_>,
) -> Result<Value, PatchError> {
    match patch {
        Value::Object(patch) => {
            let before = before.as_ref().map(members).unwrap_or_default();
            Ok(Value::Object(merge_map(before, patch, field, keys)?))
        }
        Value::Array(patch) => {
            let strategy = keys.of_list(parent, field);
            let Some(Value::Array(before)) = before else {
                return Ok(Value::Array(new_list(patch)));
            };
            let mut list = match strategy {
                ListStrategy::Replace => patch.clone(),
                ListStrategy::Primitive => merge_primitives(before, patch),
                ListStrategy::ByKey(key) => merge_list(before, patch, (key, field), keys)?,
            };
            if let Some(order) = order {
                sort_by_order(&mut list, order, strategy);
            }
            Ok(Value::Array(list))
        }
        other => Ok(other.clone()),
    }
}

/// A list that was not there: the patch's, even where items share a key; directives are dropped.
fn new_list(patch: &[Value]) -> Vec<Value> {
    let kept = patch.iter().filter(|item| item.get("$patch").is_none());
    kept.cloned().collect()
}

fn merge_primitives(mut list: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    for value in patch {
        if !list.contains(value) {
            list.push(value.clone());
        }
    }
    list
}

fn delete_primitives(document: &mut Map<String, Value>, field: &str, deleted: &Value) {
    let deleted = deleted.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(Value::Array(list)) = document.get_mut(field) {
        list.retain(|value| !deleted.contains(value));
        if list.is_empty() {
            document.remove(field);
        }
    }
}

fn merge_list(
    mut list: Vec<Value>,
    patch: &[Value],
    (key, field): (&str, &str),
    keys: MergeKeys<'_>,
) -> Result<Vec<Value>, PatchError> {
    if patch.iter().any(|item| item["$patch"] == "replace") {
        let kept = patch.iter().filter(|item| item["$patch"] != "replace");
        return Ok(kept.cloned().collect());
    }
    for item in patch {
        let Some(item) = item.as_object() else {
            let text = format!("{field}: expected an object in a list merged by {key}");
            return Err(PatchError::Malformed(text));
        };
        let Some(value) = item.get(key) else {
            let text = format!(
                "map: {} does not contain declared merge key: {key}",
                go_map(item)
            );
            return Err(PatchError::Malformed(text));
        };
        let position = list.iter().position(|old| old.get(key) == Some(value));
        match (item.get("$patch").and_then(Value::as_str), position) {
            (Some("delete"), _) => list.retain(|old| old.get(key) != Some(value)),
            (_, Some(position)) => {
                let merged = merge_map(members(&list[position]), item, field, keys)?;
                list[position] = Value::Object(merged);
            }
            (_, None) => list.push(Value::Object(merge_map(Map::new(), item, field, keys)?)),
        }
    }
    Ok(list)
}

/// Puts the listed elements in the given relative order; others stay before their old neighbours.
fn sort_by_order(list: &mut [Value], order: &Value, strategy: ListStrategy) {
    let order = order.as_array().map(Vec::as_slice).unwrap_or_default();
    let rank = |item: &Value| {
        order.iter().position(|wanted| match strategy {
            ListStrategy::ByKey(key) => {
                wanted.get(key).is_some() && wanted.get(key) == item.get(key)
            }
            ListStrategy::Primitive | ListStrategy::Replace => wanted == item,
        })
    };
    let places: Vec<usize> = (0..list.len())
        .filter(|index| rank(&list[*index]).is_some())
        .collect();
    let mut ranked: Vec<Value> = places.iter().map(|place| list[*place].clone()).collect();
    ranked.sort_by_key(|item| rank(item));
    for (place, item) in places.into_iter().zip(ranked) {
        list[place] = item;
    }
}

fn go_map(item: &Map<String, Value>) -> String {
    let entries = item.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}:{text}"),
        other => format!("{key}:{other}"),
    });
    format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(kind: &str, document: &Value, patch: &Value) -> Value {
        strategic_merge(document, patch, MergeKeys::of(kind)).unwrap()
    }

    #[test]
    fn a_heartbeat_touches_only_its_conditions() {
        let node = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": "1"},
            {"type": "NetworkUnavailable", "status": "False"},
        ], "images": [1]}});
        let patch = json!({"status": {
            "$setElementOrder/conditions": [{"type": "Ready"}],
            "conditions": [{"type": "Ready", "lastHeartbeatTime": "2"}],
        }});
        let expected = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": "2"},
            {"type": "NetworkUnavailable", "status": "False"},
        ], "images": [1]}});
        assert_eq!(patched("Node", &node, &patch), expected);
    }

    #[test]
    fn a_replace_directive_replaces_addresses() {
        let node = json!({"status": {"addresses": [{"type": "InternalIP", "address": "a"}]}});
        let patch = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "h"}, {"$patch": "replace"},
        ]}});
        let expected = json!({"status": {"addresses": [{"type": "Hostname", "address": "h"}]}});
        assert_eq!(patched("Node", &node, &patch), expected);
    }

    #[test]
    fn containers_merge_by_name_and_follow_the_given_order() {
        let document = json!({"spec": {"containers": [
            {"name": "a", "image": "1"}, {"name": "b", "image": "1", "env": [{"name": "X"}]},
        ]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "containers": [
                {"name": "b", "image": "2", "env": [{"name": "Y", "value": "1"}]},
                {"name": "c", "image": "3"},
                {"name": "a", "$patch": "delete"},
            ],
        }});
        let expected = json!({"spec": {"containers": [
            {"name": "c", "image": "3"},
            {"name": "b", "image": "2", "env": [{"name": "X"}, {"name": "Y", "value": "1"}]},
        ]}});
        assert_eq!(patched("Pod", &document, &patch), expected);
    }

    #[test]
    fn finalizers_are_added_and_deleted_one_by_one() {
        let document = json!({"metadata": {"finalizers": ["a", "b"]}});
        let added = json!({"metadata": {"finalizers": ["c"]}});
        let expected = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
        assert_eq!(patched("Pod", &document, &added), expected);
        let deleted = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
        let expected = json!({"metadata": {"finalizers": ["b"]}});
        assert_eq!(patched("Pod", &document, &deleted), expected);
    }

    #[test]
    fn retained_keys_clear_their_siblings() {
        let document =
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        let expected = json!({"spec": {"strategy": {"type": "Recreate"}}});
        assert_eq!(patched("Deployment", &document, &patch), expected);
    }

    #[test]
    fn a_list_without_a_merge_key_is_replaced() {
        let document = json!({"spec": {"taints": [{"key": "a"}]}});
        let patch = json!({"spec": {"taints": [{"key": "b"}]}});
        assert_eq!(patched("Node", &document, &patch), patch);
    }

    #[test]
    fn a_list_item_without_its_merge_key_is_malformed() {
        let document = json!({"spec": {"containers": [{"name": "c"}]}});
        let patch = json!({"spec": {"containers": [{"image": "x"}]}});
        let error = strategic_merge(&document, &patch, MergeKeys::of("Pod")).unwrap_err();
        let text = "map: map[image:x] does not contain declared merge key: name";
        assert_eq!(error, PatchError::Malformed(text.to_owned()));
    }
}
