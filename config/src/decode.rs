//! Tree → typed shape, with every mistake and not only the first.
//!
//! serde stops at the first thing it does not like. So the tree is decoded again and again: each
//! time the part that was refused is noted and taken out, until the rest decodes. Every field of
//! the shape may be absent, so each round makes the tree smaller and the loop ends. A hand-written
//! decoder would do it in one pass, at the price of saying every field twice.
//!
//! Owns the words of type errors and of unknown keys, with a suggestion where one is close.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::tree::{Key, Node, Spot, Step, Value, key};
use crate::{Mistake, Place};

/// What could be decoded, what was left of the tree, and what had to be taken out of it.
pub(crate) struct Decoded<T> {
    pub(crate) shape: T,
    pub(crate) tree: Node,
    pub(crate) mistakes: Vec<Mistake>,
}

/// Decodes `tree`, leaving out what does not fit. `advice` may replace the message about an unknown
/// key; it is given the whole key.
pub(crate) fn decode<T: DeserializeOwned + Default>(
    mut tree: Node,
    advice: fn(&str) -> Option<String>,
) -> Decoded<T> {
    let mut mistakes = Vec::new();
    loop {
        let refusal = match T::deserialize(Cursor {
            node: &tree,
            path: Vec::new(),
        }) {
            Ok(shape) => {
                return Decoded {
                    shape,
                    tree,
                    mistakes,
                };
            }
            Err(refusal) => refusal,
        };
        let (path, spot) = refusal.at.unwrap_or((Vec::new(), tree.spot));
        let key = key(&path);
        let message = match refusal.unknown_key {
            true => advice(&key).unwrap_or(refusal.message),
            false => refusal.message,
        };
        let place = Place {
            line: spot.line,
            column: spot.column,
            key,
        };
        mistakes.push(Mistake { place, message });
        if !tree.remove(&path) {
            // The document itself is of the wrong type: nothing is left to decode.
            return Decoded {
                shape: T::default(),
                tree,
                mistakes,
            };
        }
    }
}

/// A value about to be decoded.
struct Cursor<'a> {
    node: &'a Node,
    path: Vec<Step>,
}

/// Why a value was refused. The place is filled in by the innermost cursor on the way out.
#[derive(Debug)]
struct Refusal {
    at: Option<(Vec<Step>, Spot)>,
    unknown_key: bool,
    message: String,
}

impl Refusal {
    fn at(mut self, path: &[Step], spot: Spot) -> Self {
        self.at.get_or_insert_with(|| (path.to_vec(), spot));
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl serde::de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            at: None,
            unknown_key: false,
            message: message.to_string(),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expectation(expected);
        let found = match found {
            // A token or a key that was given in place of this file, or as a block of it.
            Unexpected::Str(_) if expected == MAPPING => "a text".to_owned(),
            found => finding(found),
        };
        Self::custom(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let names = expected.join("`, `");
        let hint = suggestion(variant, expected);
        Self::custom(format!(
            "`{variant}` is not known here{hint}; choose one of `{names}`"
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let names = expected.join("`, `");
        let hint = suggestion(field, expected);
        let message = format!("unknown key `{field}`{hint}; the keys here are `{names}`");
        Self {
            at: None,
            unknown_key: true,
            message,
        }
    }
}

const MAPPING: &str = "a mapping of keys to values";

/// What a visitor expects, in the words of someone who writes YAML.
fn expectation(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") => MAPPING.to_owned(),
        other => other.to_owned(),
    }
}

fn finding(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unit | Unexpected::Option => {
            "nothing; give a value or remove the key".to_owned()
        }
        Unexpected::Str(text) => format!("the text `{text}`"),
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// `, did you mean …` when a known name is close.
fn suggestion(name: &str, known: &[&str]) -> String {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(&lower, &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, known)| {
            format!(", did you mean `{known}`")
        })
}

impl<'de> Deserializer<'de> for Cursor<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let spot = self.node.spot;
        let path = self.path.clone();
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                (Err(_), Err(_)) => Err(Refusal::custom("this number is out of range")),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::Sequence(elements) => visitor.visit_seq(Elements {
                rest: elements.iter(),
                path: self.path,
            }),
            Value::Mapping(entries) => visitor.visit_map(Entries {
                rest: entries.iter(),
                value: None,
                path: self.path,
            }),
        }
        .map_err(|refusal| refusal.at(&path, spot))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Sequence(_)
            | Value::Mapping(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let text = match &self.node.value {
            Value::Text(text) => text,
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Sequence(_)
            | Value::Mapping(_) => {
                let names = variants.join("`, `");
                let message = format!("expected one of `{names}`");
                return Err(Refusal::custom(message).at(&self.path, self.node.spot));
            }
        };
        let text: StrDeserializer<'_, Refusal> = text.as_str().into_deserializer();
        text.deserialize_enum(name, variants, visitor)
            .map_err(|refusal| refusal.at(&self.path, self.node.spot))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        // serde would also take a list, its elements as fields in order; a file may not.
        if let Value::Sequence(_) = self.node.value {
            let refusal = Refusal::invalid_type(Unexpected::Seq, &visitor);
            return Err(refusal.at(&self.path, self.node.spot));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Elements<'a> {
    rest: std::slice::Iter<'a, (usize, Node)>,
    path: Vec<Step>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        let Some((index, node)) = self.rest.next() else {
            return Ok(None);
        };
        let mut path = self.path.clone();
        path.push(Step::Index(*index));
        seed.deserialize(Cursor { node, path }).map(Some)
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
    path: Vec<Step>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        let Some((name, node)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some((name, node));
        let text: StrDeserializer<'_, Refusal> = name.name.as_str().into_deserializer();
        seed.deserialize(text).map(Some).map_err(|refusal| {
            let mut path = self.path.clone();
            path.push(Step::Key(name.name.clone()));
            refusal.at(&path, name.spot)
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        let (name, node) = self
            .value
            .take()
            .expect("serde asks for a value after its key");
        let mut path = self.path.clone();
        path.push(Step::Key(name.name.clone()));
        seed.deserialize(Cursor {
            node,
            path: path.clone(),
        })
        .map_err(|refusal| refusal.at(&path, node.spot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Shape {
        count: Option<u32>,
        names: Vec<String>,
        inner: Option<Box<Self>>,
    }

    fn mistakes(text: &str) -> Vec<String> {
        let decoded = decode::<Shape>(Node::parse(text).unwrap(), |_| None);
        decoded
            .mistakes
            .iter()
            .map(|m| format!("{}: {}", m.place.key, m.message))
            .collect()
    }

    #[test]
    fn every_mistake_is_named_and_the_rest_decodes() {
        let text = "count: -1\nnmaes: [a]\ninner: {names: [a, 5, b, [c]], cuont: 1}\n";
        let decoded = decode::<Shape>(Node::parse(text).unwrap(), |_| None);
        assert_eq!(decoded.shape.inner.unwrap().names, ["a", "b"]);
        assert!(decoded.shape.count.is_none());
        assert_eq!(
            mistakes(text),
            [
                "count: expected a whole number from 0 to 4294967295, found the number -1",
                "nmaes: unknown key `nmaes`, did you mean `names`; the keys here are `count`, \
                 `names`, `inner`",
                "inner.names[1]: expected a text, found the number 5",
                "inner.names[3]: expected a text, found a list",
                "inner.cuont: unknown key `cuont`, did you mean `count`; the keys here are \
                 `count`, `names`, `inner`",
            ]
        );
    }

    #[test]
    fn a_document_of_the_wrong_type_is_one_mistake() {
        assert_eq!(
            mistakes("[1, 2]"),
            [": expected a mapping of keys to values, found a list"]
        );
        assert_eq!(
            mistakes("5"),
            [": expected a mapping of keys to values, found the number 5"]
        );
    }
}
