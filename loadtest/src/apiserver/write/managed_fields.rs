//! Who owns which field: `metadata.managedFields`.
//!
//! Owns the sets of fields (as structured-merge-diff writes them, `FieldsV1`), the comparison of
//! two objects that finds what a write changed, and the bookkeeping of owners for updates and for
//! server-side apply. Which lists are maps or sets, and which maps are one value, is a table here.
//! Refuses versions: every entry is in the version the object is served in.
//!
//! Invariant: a write that changes nothing else leaves every entry and its time alone.

mod field_set;
mod topology;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(super) use field_set::FieldSet;
pub(super) use topology::{Topology, key_of};

use topology::ListShape;

/// What a write did to an object's fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Fields that are new or have another value.
    pub(super) written: FieldSet,
    /// Fields that are gone.
    pub(super) removed: FieldSet,
}

/// Compares two objects; fields nobody can own (identity, managedFields itself) are left out.
pub(super) fn compare(topology: Topology<'_>, old: &Value, new: &Value) -> Changes {
    let mut changes = Changes::default();
    let (old, new) = (strip(old), strip(new));
    compare_values(
        topology,
        Some(&old),
        Some(&new),
        &mut Vec::new(),
        &mut changes,
    );
    changes
}

/// Every field of an object, as server-side apply claims them.
pub(super) fn all_fields(topology: Topology<'_>, object: &Value) -> FieldSet {
    compare(topology, &json!({"metadata": {}, "spec": {}}), object).written
}

fn strip(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(top) = object.as_object_mut() {
        top.remove("apiVersion");
        top.remove("kind");
        top.entry("metadata").or_insert_with(|| json!({}));
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for identity in IDENTITY {
            metadata.remove(*identity);
        }
    }
    object
}

const IDENTITY: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "selfLink",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "generateName",
];

/// `old` or `new` absent means added or removed with everything below.
fn compare_values(
    topology: Topology<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    changes: &mut Changes,
) {
    if old == new {
        return;
    }
    if !path.is_empty() {
        if old.is_none() {
            changes.written.insert(path);
        } else if new.is_none() {
            changes.removed.insert(path);
        }
    }
    let shape = old.filter(|value| !value.is_null()).or(new);
    match shape {
        Some(Value::Object(_)) if !topology.is_atomic(path) => {
            let (old, new) = (
                old.and_then(Value::as_object),
                new.and_then(Value::as_object),
            );
            let mut keys: Vec<&String> = old.into_iter().flatten().map(|(key, _)| key).collect();
            keys.extend(new.into_iter().flatten().map(|(key, _)| key));
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                path.push(format!("f:{key}"));
                let (old, new) = (
                    old.and_then(|old| old.get(key)),
                    new.and_then(|new| new.get(key)),
                );
                compare_values(topology, old, new, path, changes);
                path.pop();
            }
        }
        Some(Value::Array(_)) if topology.list(path) != ListShape::Atomic => {
            let shape = topology.list(path);
            let (old, new) = (elements(shape, old), elements(shape, new));
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                path.push(key.clone());
                let (old, new) = (old.get(key), new.get(key));
                compare_items(topology, old, new, path, changes);
                path.pop();
            }
        }
        Some(_) if old.is_some() && new.is_some() => changes.written.insert(path),
        Some(_) | None => {}
    }
}

/// Compares what has one key; items that share theirs count as one value.
fn compare_items(
    topology: Topology<'_>,
    old: Option<&Vec<&Value>>,
    new: Option<&Vec<&Value>>,
    path: &mut Vec<String>,
    changes: &mut Changes,
) {
    let doubled = |items: Option<&Vec<&Value>>| items.is_some_and(|items| items.len() > 1);
    if !doubled(old) && !doubled(new) {
        let old = old.and_then(|items| items.first().copied());
        let new = new.and_then(|items| items.first().copied());
        compare_values(topology, old, new, path, changes);
    } else if new.is_none() {
        changes.removed.insert(path);
    } else if old != new {
        changes.written.insert(path);
    }
}

/// The elements of a list by path element.
fn elements(shape: ListShape, list: Option<&Value>) -> BTreeMap<String, Vec<&Value>> {
    let mut elements = BTreeMap::<String, Vec<&Value>>::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        elements.entry(key_of(shape, item)).or_default().push(item);
    }
    elements
}

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer<'a> {
    /// The manager's name.
    pub(super) manager: &'a str,
    /// `Update` or `Apply`.
    pub(super) operation: &'a str,
    /// The version the object was sent in.
    pub(super) api_version: &'a str,
    /// The subresource written; empty for the object itself.
    pub(super) subresource: &'a str,
    /// Now, RFC 3339 in seconds.
    pub(super) time: &'a str,
}

impl Writer<'_> {
    fn owns(self, entry: &Value) -> bool {
        let is = |field: &str, wanted: &str| entry[field].as_str().unwrap_or_default() == wanted;
        is("manager", self.manager)
            && is("operation", self.operation)
            && is("apiVersion", self.api_version)
            && is("subresource", self.subresource)
    }

    fn entry(self, fields: &FieldSet) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields.print(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }
}

/// The entries after an update: the writer owns what it changed, others lose it.
pub(super) fn update(entries: &[Value], writer: Writer<'_>, changes: &Changes) -> Vec<Value> {
    let gone = changes.removed.clone();
    let mut kept = Vec::new();
    let mut own = FieldSet::default();
    let mut before = None;
    for entry in entries {
        let mut fields = FieldSet::parse(&entry["fieldsV1"]);
        if writer.owns(entry) {
            own = fields;
            before = Some(entry.clone());
            continue;
        }
        let was = fields.clone();
        fields.subtract(&gone, true);
        if entry["operation"] == "Update" {
            fields.subtract(&changes.written, false);
        }
        if fields.is_empty() {
            continue;
        }
        let mut entry = entry.clone();
        if fields != was {
            entry["fieldsV1"] = fields.print();
        }
        kept.push(entry);
    }
    own.subtract(&gone, true);
    own.union(&changes.written);
    if !own.is_empty() {
        let untouched = changes.written.is_empty() && changes.removed.is_empty();
        match before.filter(|entry| untouched && FieldSet::parse(&entry["fieldsV1"]) == own) {
            Some(entry) => kept.push(entry),
            None => kept.push(writer.entry(&own)),
        }
    }
    sort(&mut kept);
    kept
}

/// The entries after an apply: the writer owns exactly what it sent.
pub(super) fn apply(entries: &[Value], writer: Writer<'_>, applied: &FieldSet) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    let mut same = false;
    for entry in entries {
        if writer.owns(entry) {
            same = FieldSet::parse(&entry["fieldsV1"]) == *applied;
            if same {
                kept.push(entry.clone());
            }
            continue;
        }
        kept.push(entry.clone());
    }
    if !same && !applied.is_empty() {
        kept.push(writer.entry(applied));
    }
    sort(&mut kept);
    kept
}

/// The entries after an applier took fields by force: nobody else has them any more.
pub(super) fn take(entries: &[Value], writer: Writer<'_>, taken: &FieldSet) -> Vec<Value> {
    let mut kept = entries.to_vec();
    for entry in kept.iter_mut().filter(|entry| !writer.owns(entry)) {
        let mut fields = FieldSet::parse(&entry["fieldsV1"]);
        fields.subtract(taken, false);
        entry["fieldsV1"] = fields.print();
    }
    kept.retain(|entry| !FieldSet::parse(&entry["fieldsV1"]).is_empty());
    kept
}

/// What this applier claimed before.
pub(super) fn applied_before(entries: &[Value], writer: Writer<'_>) -> FieldSet {
    let entry = entries.iter().find(|entry| writer.owns(entry));
    entry
        .map(|entry| FieldSet::parse(&entry["fieldsV1"]))
        .unwrap_or_default()
}

/// Managers other than the writer that own a field of `changed`, with the first such fields.
pub(super) fn conflicts(
    entries: &[Value],
    writer: Writer<'_>,
    changed: &FieldSet,
) -> Vec<(String, Vec<String>)> {
    let mut conflicts = Vec::new();
    for entry in entries.iter().filter(|entry| !writer.owns(entry)) {
        let fields = FieldSet::parse(&entry["fieldsV1"]);
        let paths = changed.paths().into_iter().filter(|path| fields.has(path));
        let paths: Vec<String> = paths.map(|path| dotted(&path)).collect();
        if paths.is_empty() {
            continue;
        }
        let mut name = format!("\"{}\"", entry["manager"].as_str().unwrap_or_default());
        if let Some(subresource) = entry["subresource"].as_str() {
            name.push_str(&format!(" with subresource \"{subresource}\""));
        }
        if entry["operation"] == "Update" {
            name.push_str(&format!(
                " using {}",
                entry["apiVersion"].as_str().unwrap_or_default()
            ));
        }
        conflicts.push((name, paths));
    }
    conflicts
}

/// Whether anybody in `entries` owns the path or something below it.
pub(super) fn owned(entries: &[Value], path: &[String]) -> bool {
    entries.iter().any(|entry| {
        let fields = FieldSet::parse(&entry["fieldsV1"]);
        fields.paths().iter().any(|known| known.starts_with(path))
    })
}

/// Takes the field at a path out of an object.
pub(super) fn remove_path(topology: Topology<'_>, object: &mut Value, path: &[String]) {
    let mut at = object;
    for (depth, element) in path.iter().enumerate() {
        let last = depth + 1 == path.len();
        if let Some(field) = element.strip_prefix("f:") {
            let Some(members) = at.as_object_mut() else {
                return;
            };
            if last {
                members.remove(field);
                return;
            }
            let Some(below) = members.get_mut(field) else {
                return;
            };
            at = below;
        } else {
            let shape = topology.list(&path[..depth]);
            let Some(items) = at.as_array_mut() else {
                return;
            };
            let position = items
                .iter()
                .position(|item| key_of(shape, item) == *element);
            let Some(position) = position else { return };
            if last {
                items.remove(position);
                return;
            }
            at = &mut items[position];
        }
    }
}

/// A path as messages print it: `.spec.containers[name="c"].image`.
fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for element in path {
        if let Some(field) = element.strip_prefix("f:") {
            text.push('.');
            text.push_str(field);
        } else if let Some(key) = element.strip_prefix("k:") {
            let key: Value = serde_json::from_str(key).unwrap_or_default();
            let pairs = key.as_object().into_iter().flatten();
            let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={v}")).collect();
            text.push_str(&format!("[{}]", pairs.join(",")));
        } else {
            text.push_str(&format!("[={}]", element.trim_start_matches("v:")));
        }
    }
    text
}

/// Applies before updates, older before newer, then by manager, as `managedfields` sorts them.
fn sort(entries: &mut [Value]) {
    entries.sort_by(|a, b| {
        let key = |entry: &Value| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            (
                text("operation"),
                text("time"),
                text("manager"),
                text("apiVersion"),
            )
        };
        key(a).cmp(&key(b))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn writer<'a>(manager: &'a str, subresource: &'a str) -> Writer<'a> {
        Writer {
            manager,
            operation: "Update",
            api_version: "v1",
            subresource,
            time: NOW,
        }
    }

    #[test]
    fn a_new_map_owns_itself_and_a_known_struct_does_not() {
        let empty = json!({"metadata": {}, "spec": {"containers": null}});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "resources": {}}], "nodeName": "n"},
        });
        let changes = compare(Topology::of("Pod"), &empty, &pod);
        let expected = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {}}},
                "f:nodeName": {},
            },
        });
        assert_eq!(changes.written.print(), expected);
        assert_eq!(FieldSet::parse(&expected), changes.written);
    }

    #[test]
    fn finalizers_are_a_set_and_atomic_lists_one_value() {
        let new = json!({"metadata": {"finalizers": ["x"]}, "spec": {"taints": [{"key": "a"}]}});
        let changes = compare(
            Topology::of("Node"),
            &json!({"metadata": {}, "spec": {}}),
            &new,
        );
        let expected = json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"x\"": {}}},
            "f:spec": {"f:taints": {}},
        });
        assert_eq!(changes.written.print(), expected);
    }

    #[test]
    fn an_update_takes_ownership_of_what_it_changes() {
        let topology = Topology::of("ConfigMap");
        let (empty, one) = (json!({}), json!({"data": {"a": "1", "b": "1"}}));
        let two = json!({"data": {"a": "2", "b": "1"}});
        let entries = update(&[], writer("x", ""), &compare(topology, &empty, &one));
        let entries = update(&entries, writer("y", ""), &compare(topology, &one, &two));
        let fields: Vec<_> = entries
            .iter()
            .map(|e| (&e["manager"], &e["fieldsV1"]))
            .collect();
        assert_eq!(
            fields,
            [
                (&json!("x"), &json!({"f:data": {".": {}, "f:b": {}}})),
                (&json!("y"), &json!({"f:data": {"f:a": {}}})),
            ]
        );
    }

    #[test]
    fn fields_taken_by_force_leave_their_owner() {
        let entry = json!({
            "manager": "x", "operation": "Apply", "apiVersion": "v1",
            "fieldsV1": {"f:data": {".": {}, "f:a": {}}},
        });
        let mut taken = FieldSet::default();
        taken.insert(&["f:data".to_owned(), "f:a".to_owned()]);
        let kept = take(&[entry], writer("y", ""), &taken);
        assert_eq!(kept[0]["fieldsV1"], json!({"f:data": {}}));
    }

    #[test]
    fn removing_a_field_removes_its_owners() {
        let topology = Topology::of("ConfigMap");
        let (empty, one) = (json!({}), json!({"metadata": {"finalizers": ["x"]}}));
        let entries = update(&[], writer("x", ""), &compare(topology, &empty, &one));
        assert_eq!(entries.len(), 1);
        let gone = compare(topology, &one, &json!({"metadata": {}}));
        assert!(update(&entries, writer("x", ""), &gone).is_empty());
    }

    #[test]
    fn a_write_that_changes_nothing_keeps_times() {
        let topology = Topology::of("ConfigMap");
        let one = json!({"data": {"a": "1"}});
        let entries = update(&[], writer("x", ""), &compare(topology, &json!({}), &one));
        let mut later = writer("x", "");
        later.time = "2027-01-01T00:00:00Z";
        assert_eq!(
            update(&entries, later, &compare(topology, &one, &one)),
            entries
        );
    }
}
