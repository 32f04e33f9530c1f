//! Walks JSON along a schema.
//!
//! Owns the translation of serde's callbacks into those of a [`Sink`]: nothing is decoded that no
//! table names, and a text is copied only if it has escapes. A `null` is as good as nothing, as in
//! Go. Where a message or a text is wanted an array of them is one after the other. Refuses values
//! of other types.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::FactsError;
use super::schema::{Field, Message, Sink, Value};

/// Walks one object.
pub(super) fn walk<'a, S: Sink<'a>>(
    bytes: &'a [u8],
    message: &'static Message<S::Text, S::Item>,
    sink: &mut S,
) -> Result<(), FactsError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let whole = Expected {
        what: What::Message(message, None),
        sink,
    };
    let walked = whole.deserialize(&mut json).and_then(|()| json.end());
    walked.map_err(|error| describe(&error))
}

/// Where, and of which kind: serde's own words would quote the object.
fn describe(error: &serde_json::Error) -> FactsError {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Data => FactsError::Mistyped { line, column },
        Category::Io | Category::Syntax | Category::Eof => FactsError::Json { line, column },
    }
}

/// What the value that comes next is expected to be.
enum What<T: 'static, I: 'static> {
    Text(T),
    Keys(T),
    Message(&'static Message<T, I>, Option<I>),
}

impl<T: Copy, I: Copy> Clone for What<T, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Copy, I: Copy> Copy for What<T, I> {}

impl<T: Copy, I: Copy> What<T, I> {
    fn of(field: &Field<T, I>) -> Self {
        match field.value {
            Value::Text(which) => Self::Text(which),
            Value::Keys(which) => Self::Keys(which),
            Value::Message(message) => Self::Message(message, None),
            Value::Item(which, message) => Self::Message(message, Some(which)),
        }
    }
}

/// Reads the value that comes next.
struct Expected<'w, S, T: 'static, I: 'static> {
    what: What<T, I>,
    sink: &'w mut S,
}

impl<'de, S: Sink<'de>> DeserializeSeed<'de> for Expected<'_, S, S::Text, S::Item> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, S: Sink<'de>> Visitor<'de> for Expected<'_, S, S::Text, S::Item> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.what {
            What::Text(_) => "a string",
            What::Keys(_) | What::Message(..) => "an object",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<(), E> {
        self.text(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text(Cow::Owned(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let Self { what, sink } = self;
        while values
            .next_element_seed(Expected {
                what,
                sink: &mut *sink,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.what {
            What::Text(_) => Err(serde::de::Error::invalid_type(
                serde::de::Unexpected::Map,
                &self,
            )),
            What::Keys(which) => read_keys(map, which, self.sink),
            What::Message(message, None) => read_fields(map, message, self.sink),
            What::Message(message, Some(item)) => {
                self.sink.enter(item);
                read_fields(map, message, &mut *self.sink)?;
                self.sink.leave(item);
                Ok(())
            }
        }
    }
}

impl<S, T: Copy, I: Copy> Expected<'_, S, T, I> {
    fn text<'de, E: serde::de::Error>(self, text: Cow<'de, str>) -> Result<(), E>
    where
        S: Sink<'de, Text = T, Item = I>,
    {
        let What::Text(which) = self.what else {
            // The text is not said: it may be anything.
            return Err(E::invalid_type(serde::de::Unexpected::Str(""), &self));
        };
        self.sink.text(which, text);
        Ok(())
    }
}

fn read_fields<'de, S: Sink<'de>, A: MapAccess<'de>>(
    mut fields: A,
    message: &'static Message<S::Text, S::Item>,
    sink: &mut S,
) -> Result<(), A::Error> {
    while let Some(found) = fields.next_key_seed(FieldOf(message))? {
        match found {
            Some(field) => fields.next_value_seed(Expected {
                what: What::of(field),
                sink: &mut *sink,
            })?,
            None => {
                fields.next_value::<IgnoredAny>()?;
            }
        }
    }
    Ok(())
}

fn read_keys<'de, S: Sink<'de>, A: MapAccess<'de>>(
    mut entries: A,
    which: S::Text,
    sink: &mut S,
) -> Result<(), A::Error> {
    while entries
        .next_key_seed(Expected {
            what: What::Text(which),
            sink: &mut *sink,
        })?
        .is_some()
    {
        entries.next_value::<IgnoredAny>()?;
    }
    Ok(())
}

/// Reads a key and finds its field.
struct FieldOf<T: 'static, I: 'static>(&'static Message<T, I>);

impl<'de, T, I> DeserializeSeed<'de> for FieldOf<T, I> {
    type Value = Option<&'static Field<T, I>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<T, I> Visitor<'_> for FieldOf<T, I> {
    type Value = Option<&'static Field<T, I>>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.named(name))
    }
}
