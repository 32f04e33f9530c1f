//! The shape of what is read out of objects, for both encodings at once.
//!
//! Owns the description of messages: a field has a JSON name, a protobuf number and a value, which
//! is a text that somebody wants, or a message with such texts inside. Both walkers read the same
//! tables, so that JSON and protobuf cannot disagree about what counts. It refuses everything else:
//! a field that no table names is skipped unread. Invariant: a sink hears of a text exactly when it
//! stands in the object, also when it is empty, and of nothing that is `null` or left out.
//!
//! ```text
//!             JSON                                  protobuf
//!  {"name":"v","secret":{"secretName":"s"}}     1:"v" 2:{6:{1:"s"}}
//!        │         │                             │    │
//!        └─────────┴────► text("name", 1, …) ◄───┘    │
//!                         inlined(2, [ message("secret", 6, …) ])
//! ```
//!
//! Rejected: a struct per message for each encoding, which says everything twice, and copies every
//! name before anybody knows whether it is wanted.

use std::borrow::Cow;

use super::{FactsError, json, protobuf};

/// What Kubernetes writes in front of protobuf.
const MAGIC: &[u8] = b"k8s\0";

/// Hears what a walker found. Texts live as long as the bytes where they stand there as they are.
pub(super) trait Sink<'a> {
    /// Which text.
    type Text: Copy + 'static;
    /// Which item.
    type Item: Copy + 'static;

    /// A text.
    fn text(&mut self, which: Self::Text, text: Cow<'a, str>);

    /// An item begins; what is heard before its end is in it.
    fn enter(&mut self, which: Self::Item);

    /// An item ends.
    fn leave(&mut self, which: Self::Item);
}

/// The fields of a message that matter.
#[derive(Debug)]
pub(super) struct Message<T: 'static, I: 'static>(pub(super) &'static [Field<T, I>]);

/// A field that matters. Whether it is repeated need not be said: it is read as often as it stands.
#[derive(Debug)]
pub(super) struct Field<T: 'static, I: 'static> {
    /// In JSON; empty where JSON has the fields of the message among those of its parent.
    name: &'static str,
    /// In protobuf.
    number: u32,
    pub(super) value: Value<T, I>,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Value<T: 'static, I: 'static> {
    /// A text that is reported.
    Text(T),
    /// A map of which the keys are reported.
    Keys(T),
    /// A message, reported only by what is in it.
    Message(&'static Message<T, I>),
    /// A message whose begin and end are reported too.
    Item(I, &'static Message<T, I>),
}

pub(super) const fn text<T, I>(name: &'static str, number: u32, which: T) -> Field<T, I> {
    let value = Value::Text(which);
    Field {
        name,
        number,
        value,
    }
}

pub(super) const fn keys<T, I>(name: &'static str, number: u32, which: T) -> Field<T, I> {
    let value = Value::Keys(which);
    Field {
        name,
        number,
        value,
    }
}

pub(super) const fn message<T, I>(
    name: &'static str,
    number: u32,
    fields: &'static Message<T, I>,
) -> Field<T, I> {
    let value = Value::Message(fields);
    Field {
        name,
        number,
        value,
    }
}

/// A message that only protobuf has: in JSON its fields stand in the parent.
pub(super) const fn inlined<T, I>(number: u32, fields: &'static Message<T, I>) -> Field<T, I> {
    message("", number, fields)
}

pub(super) const fn item<T, I>(
    name: &'static str,
    number: u32,
    which: I,
    fields: &'static Message<T, I>,
) -> Field<T, I> {
    let value = Value::Item(which, fields);
    Field {
        name,
        number,
        value,
    }
}

impl<T, I> Message<T, I> {
    /// The field with this name in JSON.
    pub(super) fn named(&self, name: &str) -> Option<&'static Field<T, I>> {
        self.0.iter().find_map(|field| match &field.value {
            Value::Message(fields) if field.name.is_empty() => fields.named(name),
            Value::Message(_) | Value::Text(_) | Value::Keys(_) | Value::Item(..) => {
                (field.name == name).then_some(field)
            }
        })
    }

    /// The field with this number in protobuf.
    pub(super) fn numbered(&self, number: u32) -> Option<&'static Field<T, I>> {
        self.0.iter().find(|field| field.number == number)
    }
}

/// Walks an object: protobuf if it begins as Kubernetes' protobuf does, which no JSON can, else
/// JSON.
pub(super) fn walk<'a, S: Sink<'a>>(
    bytes: &'a [u8],
    message: &'static Message<S::Text, S::Item>,
    sink: &mut S,
) -> Result<(), FactsError> {
    match bytes.strip_prefix(MAGIC) {
        Some(envelope) => protobuf::walk(protobuf::unwrap(envelope)?, message, sink),
        None => json::walk(bytes, message, sink),
    }
}
