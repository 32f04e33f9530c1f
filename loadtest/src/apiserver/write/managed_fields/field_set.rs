//! Sets of fields, as structured-merge-diff writes them (`FieldsV1`).
//!
//! Owns reading and writing the form, and the set operations ownership is reckoned with. Path
//! elements are kept in their written form (`f:spec`, `k:{"name":"c"}`, `v:"x"`), whose byte order
//! is the order they are written in.
//!
//! Invariant: no element without a member at or below it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of fields: per path element whether it is a member itself, and its children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct FieldSet(BTreeMap<String, Node>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    children: FieldSet,
}

impl FieldSet {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0
            .values()
            .all(|node| !node.member && node.children.is_empty())
    }

    /// Reads `fieldsV1`.
    pub(in super::super) fn parse(fields: &Value) -> Self {
        let entries = fields.as_object().into_iter().flatten();
        let entries = entries
            .filter(|(element, _)| *element != ".")
            .map(|(element, below)| {
                let below_entries = below.as_object();
                let leaf = below_entries.is_none_or(Map::is_empty);
                let member = leaf || below.get(".").is_some();
                (
                    element.clone(),
                    Node {
                        member,
                        children: Self::parse(below),
                    },
                )
            });
        Self(entries.collect())
    }

    /// Writes `fieldsV1`; the map's own order is the order of path elements.
    pub(in super::super) fn print(&self) -> Value {
        let mut fields = Map::new();
        for (element, node) in &self.0 {
            if node.children.is_empty() {
                if node.member {
                    fields.insert(element.clone(), json!({}));
                }
                continue;
            }
            let mut below = node.children.print();
            if node.member {
                below["."] = json!({});
            }
            fields.insert(element.clone(), below);
        }
        Value::Object(fields)
    }

    pub(super) fn insert(&mut self, path: &[String]) {
        let Some((element, rest)) = path.split_first() else {
            return;
        };
        let node = self.0.entry(element.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert(rest);
        }
    }

    pub(super) fn union(&mut self, other: &Self) {
        for (element, node) in &other.0 {
            let mine = self.0.entry(element.clone()).or_default();
            mine.member |= node.member;
            mine.children.union(&node.children);
        }
    }

    /// Takes away the members of `other`; with `recursive`, everything below them too.
    pub(super) fn subtract(&mut self, other: &Self, recursive: bool) {
        for (element, node) in &other.0 {
            let Some(mine) = self.0.get_mut(element) else {
                continue;
            };
            if node.member {
                mine.member = false;
                if recursive {
                    mine.children = Self::default();
                }
            }
            mine.children.subtract(&node.children, recursive);
        }
        self.0
            .retain(|_, node| node.member || !node.children.is_empty());
    }

    pub(super) fn has(&self, path: &[String]) -> bool {
        match path.split_first() {
            None => false,
            Some((element, [])) => self.0.get(element).is_some_and(|node| node.member),
            Some((element, rest)) => self
                .0
                .get(element)
                .is_some_and(|node| node.children.has(rest)),
        }
    }

    /// Every member as a path.
    pub(in super::super) fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        for (element, node) in &self.0 {
            if node.member {
                paths.push(vec![element.clone()]);
            }
            for mut below in node.children.paths() {
                below.insert(0, element.clone());
                paths.push(below);
            }
        }
        paths
    }
}
