//! The document as it was written: a tree of values that know their line and column.
//!
//! Owns the only call of the YAML library. The typed shape of the file is decoded from this tree
//! and not from the text, for one reason: a serde decoder stops at the first mistake, and a tree
//! can be decoded again without the part that was wrong (see `decode.rs`). Elements of a sequence
//! keep the index they had in the file, so that a key in a message is right even after that.
//!
//! Invariant: every value and every key has the place it was written at. For an alias that is the
//! place where it is used.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, MessageFormatter, Spanned, UserMessageFormatter};

use crate::{Mistake, Place};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    pub(crate) value: Value,
}

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Sequence(Vec<(usize, Node)>),
    Mapping(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) spot: Spot,
}

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    /// The index in the file.
    Index(usize),
}

impl Node {
    /// Reads one YAML document.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            duplicate_keys: DuplicateKeyPolicy::PassThrough, // see without_repetitions
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let location = error.location();
            let place = Place {
                line: location.map_or(1, |location| location.line()).max(1),
                column: location.map_or(1, |location| location.column()).max(1),
                key: String::new(),
            };
            let message = UserMessageFormatter
                .format_message(error.without_snippet())
                .into_owned();
            Mistake {
                place,
                message: format!("this is not valid YAML: {message}"),
            }
        })
    }

    /// Takes every key out that its mapping has already, with a mistake for each. YAML forbids
    /// them; they pass the parser so that they can be named together with everything else.
    pub(crate) fn without_repetitions(&mut self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        self.take_repetitions(&mut Vec::new(), &mut mistakes);
        mistakes
    }

    fn take_repetitions(&mut self, path: &mut Vec<Step>, mistakes: &mut Vec<Mistake>) {
        match &mut self.value {
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
            }
            Value::Sequence(elements) => {
                for (index, node) in elements {
                    path.push(Step::Index(*index));
                    node.take_repetitions(path, mistakes);
                    path.pop();
                }
            }
            Value::Mapping(entries) => {
                let mut first: HashMap<String, u64> = HashMap::new();
                entries.retain_mut(|(name, node)| {
                    path.push(Step::Key(name.name.clone()));
                    node.take_repetitions(path, mistakes);
                    let earlier = first.get(&name.name).copied();
                    if let Some(line) = earlier {
                        let Spot { line: here, column } = name.spot;
                        let place = Place {
                            line: here,
                            column,
                            key: key(path),
                        };
                        let message =
                            format!("this key is already in line {line}; remove one of the two");
                        mistakes.push(Mistake { place, message });
                    }
                    first.entry(name.name.clone()).or_insert(name.spot.line);
                    path.pop();
                    earlier.is_none()
                });
            }
        }
    }

    /// The value of a key of this mapping.
    fn child(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Sequence(_) => None,
        }
    }

    /// Whether a dotted key without indices is written in the document.
    pub(crate) fn has(&self, key: &str) -> bool {
        key.split('.')
            .try_fold(self, |node, name| node.child(name))
            .is_some()
    }

    /// Where a key stands, written as `cache.resources[2].history.age` with the indices the
    /// elements have in this tree. A key that is not written stands where the innermost mapping
    /// that should hold it does.
    pub(crate) fn place(&self, key: &str) -> Place {
        let mut spot = self.spot;
        let mut name = String::new();
        let mut node = Some(self);
        for part in key.split('.') {
            let (part, indices) = part.split_once('[').map_or((part, ""), |(a, b)| (a, b));
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(part);
            node = node.and_then(|node| node.child(part));
            spot = node.map_or(spot, |node| node.spot);
            for index in indices.split('[').filter(|index| !index.is_empty()) {
                let index: usize = index.trim_end_matches(']').parse().unwrap_or(0);
                let element = node.and_then(|node| node.element(index));
                let written = element.map_or(index, |(written, _)| *written);
                name.push_str(&format!("[{written}]"));
                node = element.map(|(_, node)| node);
                spot = node.map_or(spot, |node| node.spot);
            }
        }
        Place {
            line: spot.line,
            column: spot.column,
            key: name,
        }
    }

    fn element(&self, index: usize) -> Option<&(usize, Self)> {
        match &self.value {
            Value::Sequence(elements) => elements.get(index),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Mapping(_) => None,
        }
    }

    /// Takes the value at `path` out of the tree; true when there was one.
    pub(crate) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((step, rest)) = path.split_first() else {
            return false;
        };
        match (&mut self.value, step) {
            (Value::Mapping(entries), Step::Key(name)) => {
                let Some(at) = entries.iter().position(|(key, _)| key.name == *name) else {
                    return false;
                };
                if rest.is_empty() {
                    entries.remove(at);
                    return true;
                }
                entries[at].1.remove(rest)
            }
            (Value::Sequence(elements), Step::Index(index)) => {
                let Some(at) = elements.iter().position(|(written, _)| written == index) else {
                    return false;
                };
                if rest.is_empty() {
                    elements.remove(at);
                    return true;
                }
                elements[at].1.remove(rest)
            }
            (
                Value::Null
                | Value::Bool(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Text(_)
                | Value::Sequence(_)
                | Value::Mapping(_),
                Step::Key(_) | Step::Index(_),
            ) => false,
        }
    }
}

/// Writes steps as a key: `cache.resources[2].history`.
pub(crate) fn key(path: &[Step]) -> String {
    let mut key = String::new();
    for step in path {
        match step {
            Step::Key(name) => {
                if !key.is_empty() {
                    key.push('.');
                }
                key.push_str(name);
            }
            Step::Index(index) => key.push_str(&format!("[{index}]")),
        }
    }
    key
}

fn spot<T>(spanned: &Spanned<T>) -> Spot {
    Spot {
        line: spanned.referenced.line().max(1),
        column: spanned.referenced.column().max(1),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            spot: spot(&spanned),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(node) = access.next_element()? {
            elements.push((elements.len(), node));
        }
        Ok(Value::Sequence(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = access.next_key::<Spanned<String>>()? {
            let key = Key {
                spot: spot(&name),
                name: name.value,
            };
            entries.push((key, access.next_value()?));
        }
        Ok(Value::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_where_the_value_is_written() {
        let node = Node::parse("a:\n  b: 1\n  c: [x, {d: 90s}]\n").unwrap();
        let place = node.place("a.c[1].d");
        assert_eq!(
            (place.line, place.column, place.key.as_str()),
            (3, 14, "a.c[1].d")
        );
        let missing = node.place("a.z");
        assert_eq!(
            (missing.line, missing.column, missing.key.as_str()),
            (2, 3, "a.z")
        );
    }

    #[test]
    fn an_element_keeps_its_index_when_another_is_removed() {
        let mut node = Node::parse("a: [x, y, z]").unwrap();
        assert!(node.remove(&[Step::Key("a".into()), Step::Index(0)]));
        let place = node.place("a[1]");
        assert_eq!((place.column, place.key.as_str()), (11, "a[2]"));
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let node = Node::parse("a: &x {b: 1}\nc: *x\n").unwrap();
        assert_eq!(node.place("c").line, 2);
    }

    #[test]
    fn words_of_old_yaml_are_text() {
        let node = Node::parse("a: no").unwrap();
        assert!(matches!(&node.child("a").unwrap().value, Value::Text(text) if text == "no"));
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let mistake = Node::parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert_eq!(mistake.place.line, 3, "{mistake:?}");
    }

    #[test]
    fn a_repeated_key_is_taken_out_and_named() {
        let mut node = Node::parse("a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n").unwrap();
        let mistakes = node.without_repetitions();
        let found: Vec<_> = mistakes
            .iter()
            .map(|m| (m.place.line, m.place.column, m.place.key.as_str()))
            .collect();
        assert_eq!(found, [(2, 11, "b.c"), (3, 1, "a"), (4, 1, "a")]);
        assert!(matches!(node.child("a").unwrap().value, Value::Integer(1)));
    }
}
