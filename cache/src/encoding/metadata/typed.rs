//! `metav1.ObjectMeta` as Go's struct is written, from the sorted JSON of a custom resource.
//!
//! Owns the members of the three structs in their order, with their field numbers, and what of a
//! value is left out. One table serves both encodings.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::json::{Scanner, unescape};
use super::super::protobuf::{push_bytes, push_number};

/// A member of a Go struct.
struct Member {
    name: &'static str,
    number: u8,
    value: Value,
}

/// How a member is written. JSON leaves a zero out unless said otherwise; protobuf leaves out what
/// is a pointer or a collection in Go.
#[derive(Clone, Copy)]
enum Value {
    Text,
    /// Text that JSON writes even when it is empty.
    RequiredText,
    Integer,
    /// A pointer: zero is a value.
    OptionalInteger,
    /// A pointer: false is a value.
    OptionalBool,
    /// A struct: protobuf writes an empty message for no time.
    Time,
    OptionalTime,
    /// Texts by text.
    Map,
    Texts,
    Structs(&'static [Member]),
    /// `FieldsV1`: JSON as it is; in protobuf a message around it.
    Raw,
}

const fn member(name: &'static str, number: u8, value: Value) -> Member {
    Member {
        name,
        number,
        value,
    }
}

const OBJECT_META: &[Member] = &[
    member("name", 1, Value::Text),
    member("generateName", 2, Value::Text),
    member("namespace", 3, Value::Text),
    member("selfLink", 4, Value::Text),
    member("uid", 5, Value::Text),
    member("resourceVersion", 6, Value::Text),
    member("generation", 7, Value::Integer),
    member("creationTimestamp", 8, Value::Time),
    member("deletionTimestamp", 9, Value::OptionalTime),
    member("deletionGracePeriodSeconds", 10, Value::OptionalInteger),
    member("labels", 11, Value::Map),
    member("annotations", 12, Value::Map),
    member("ownerReferences", 13, Value::Structs(OWNER_REFERENCE)),
    member("finalizers", 14, Value::Texts),
    member("managedFields", 17, Value::Structs(MANAGED_FIELDS_ENTRY)),
];

const OWNER_REFERENCE: &[Member] = &[
    member("apiVersion", 5, Value::RequiredText),
    member("kind", 1, Value::RequiredText),
    member("name", 3, Value::RequiredText),
    member("uid", 4, Value::RequiredText),
    member("controller", 6, Value::OptionalBool),
    member("blockOwnerDeletion", 7, Value::OptionalBool),
];

const MANAGED_FIELDS_ENTRY: &[Member] = &[
    member("manager", 1, Value::Text),
    member("operation", 2, Value::Text),
    member("apiVersion", 3, Value::Text),
    member("time", 4, Value::OptionalTime),
    member("fieldsType", 6, Value::Text),
    member("fieldsV1", 7, Value::Raw),
    member("subresource", 8, Value::Text),
];

/// The metadata in JSON.
pub(super) fn json(metadata: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(metadata.len());
    write_json(metadata, OBJECT_META, &mut out);
    out
}

fn write_json(text: &str, members: &[Member], out: &mut Vec<u8>) {
    let start = out.len();
    out.push(b'{');
    for (member, value) in members.iter().zip(values(text, members)) {
        let value = match (member.value, value) {
            (Value::RequiredText, value) => value.unwrap_or(NO_TEXT),
            (_, Some(value)) if !matches!(value, NO_TEXT | "0" | "{}" | "[]") => value,
            (Value::OptionalInteger | Value::Raw, Some(value)) => value,
            (_, Some(_) | None) => continue,
        };
        if out.len() > start + 1 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(member.name.as_bytes());
        out.extend_from_slice(b"\":");
        if let Value::Structs(members) = member.value {
            let mut before = b'[';
            for element in elements(value) {
                out.push(before);
                before = b',';
                write_json(element, members, out);
            }
            out.push(b']');
        } else {
            out.extend_from_slice(value.as_bytes());
        }
    }
    out.push(b'}');
}

/// The metadata as a protobuf message.
pub(super) fn protobuf(metadata: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(metadata.len());
    write_protobuf(metadata, OBJECT_META, &mut out);
    out
}

fn write_protobuf(text: &str, members: &[Member], out: &mut Vec<u8>) {
    let mut fields: Vec<_> = members.iter().zip(values(text, members)).collect();
    fields.sort_by_key(|(member, _)| member.number);
    for (member, text) in fields {
        let number = member.number;
        match (member.value, text) {
            (Value::Text | Value::RequiredText, text) => {
                push_bytes(out, number, unescape(text.unwrap_or(NO_TEXT)).as_bytes());
            }
            (Value::Integer, text) => push_number(out, number, integer(text.unwrap_or("0"))),
            (Value::OptionalInteger, Some(text)) => push_number(out, number, integer(text)),
            (Value::OptionalBool, Some(text)) => {
                push_number(out, number, u64::from(text == "true"));
            }
            (Value::Time, None) => push_bytes(out, number, &[]),
            (Value::Time | Value::OptionalTime, Some(text)) => {
                push_bytes(out, number, &timestamp(text));
            }
            (Value::Map, Some(text)) => {
                for entry in entries(text) {
                    push_bytes(out, number, &entry);
                }
            }
            (Value::Texts, Some(text)) => {
                for element in elements(text) {
                    push_bytes(out, number, unescape(element).as_bytes());
                }
            }
            (Value::Structs(members), Some(text)) => {
                for element in elements(text) {
                    let mut message = Vec::with_capacity(element.len());
                    write_protobuf(element, members, &mut message);
                    push_bytes(out, number, &message);
                }
            }
            (Value::Raw, Some(text)) => {
                let mut message = Vec::with_capacity(text.len() + 4);
                push_bytes(&mut message, 1, text.as_bytes());
                push_bytes(out, number, &message);
            }
            (
                Value::OptionalInteger
                | Value::OptionalBool
                | Value::OptionalTime
                | Value::Map
                | Value::Texts
                | Value::Structs(_)
                | Value::Raw,
                None,
            ) => {}
        }
    }
}

const NO_TEXT: &str = "\"\"";

const SCANNED: &str = "the object was scanned when it was decoded";

/// The values of `members` in the object `text`; `None` for one that is absent, null or of another
/// type, which Go's accessors read as zero.
fn values<'a>(text: &'a str, members: &[Member]) -> Vec<Option<&'a str>> {
    let mut values = vec![None; members.len()];
    let mut scanner = Scanner::new(text.as_bytes()).expect(SCANNED);
    let walked = scanner.object(|scanner, key| {
        let value = &text[scanner.skip()?];
        let known = members.iter().position(|member| member.name == key);
        if let Some(index) = known {
            values[index] = members[index].value.fits(value).then_some(value);
        }
        Ok(())
    });
    walked.expect(SCANNED);
    values
}

impl Value {
    /// Whether JSON text is a value of this type.
    fn fits(self, text: &str) -> bool {
        let first = text.as_bytes()[0];
        match self {
            Self::Text | Self::RequiredText | Self::Time | Self::OptionalTime => first == b'"',
            Self::Integer | Self::OptionalInteger => matches!(first, b'-' | b'0'..=b'9'),
            Self::OptionalBool => matches!(first, b't' | b'f'),
            Self::Map | Self::Raw => first == b'{',
            Self::Texts | Self::Structs(_) => first == b'[',
        }
    }
}

/// The elements of an array that are objects or texts.
fn elements(text: &str) -> impl Iterator<Item = &str> {
    let mut elements = Vec::new();
    let mut scanner = Scanner::new(text.as_bytes()).expect(SCANNED);
    let walked = scanner.array(|scanner| {
        elements.push(&text[scanner.skip()?]);
        Ok(())
    });
    walked.expect(SCANNED);
    elements
        .into_iter()
        .filter(|element| element.starts_with(['"', '{']))
}

/// The entries of a map of texts as protobuf writes them: sorted by key.
fn entries(text: &str) -> impl Iterator<Item = Vec<u8>> {
    let mut entries = BTreeMap::new();
    let mut scanner = Scanner::new(text.as_bytes()).expect(SCANNED);
    let walked = scanner.object(|scanner, key| {
        let value = &text[scanner.skip()?];
        if value.starts_with('"') {
            entries.insert(key.to_owned(), unescape(value));
        }
        Ok(())
    });
    walked.expect(SCANNED);
    entries.into_iter().map(|(key, value)| {
        let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
        push_bytes(&mut entry, 1, key.as_bytes());
        push_bytes(&mut entry, 2, value.as_bytes());
        entry
    })
}

/// The two's complement of an integer, as protobuf writes it.
fn integer(text: &str) -> u64 {
    text.parse::<i64>().unwrap_or_default().cast_unsigned()
}

/// The message of a time in quotes: 1 seconds since 1970, 2 nanoseconds, which JSON has none of.
fn timestamp(text: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if let Some(seconds) = unix_seconds(text) {
        push_number(&mut message, 1, seconds.cast_unsigned());
        push_number(&mut message, 2, 0);
    }
    message
}

/// Reads `"2006-01-02T15:04:05Z"`, the only form the apiserver writes.
fn unix_seconds(text: &str) -> Option<i64> {
    let part = |at: Range<usize>| text.get(at)?.parse::<i64>().ok();
    let shape: Vec<_> = [0, 5, 8, 11, 14, 17, 20]
        .iter()
        .filter_map(|&at| text.as_bytes().get(at))
        .collect();
    if text.len() != 22 || shape != [&b'"', &b'-', &b'-', &b'T', &b':', &b':', &b'Z'] {
        return None;
    }
    let (year, month, day) = (part(1..5)?, part(6..8)?, part(9..11)?);
    let seconds = part(12..14)? * 3600 + part(15..17)? * 60 + part(18..20)?;
    // Years begin in March, so that the day a leap year has more is the last one of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = 365 * year + leap_days + day_of_year - DAYS_TO_1970;
    Some(days * 86_400 + seconds)
}

/// From 1 March of the year 0 to 1 January 1970.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests;
