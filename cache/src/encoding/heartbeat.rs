//! Whether two states of a Node differ in nothing but that its kubelet is alive.
//!
//! Owns the comparison, on bytes: of the new state it is told where those values stand that every
//! heartbeat changes, `status.conditions[*].lastHeartbeatTime`, `metadata.resourceVersion` and
//! `metadata.managedFields[*].time`; all that lies between has to stand in the old state too, byte
//! for byte, and so the values in its places are of the same members. Refuses to be clever: a value
//! that takes another number of bytes, or another order, is a change like any other. So it may find
//! a heartbeat too rarely and never too often.

use std::ops::Range;

use super::json::Scanner;
use super::protobuf::{self, Reader};
use super::{DecodeError, Encoding};
use crate::object::Object;

/// Where the values of heartbeats stand, in order.
type Spans = Vec<Range<usize>>;

/// Whether `new` says no more than `old` but that the kubelet is alive.
pub(crate) fn is_heartbeat(old: &Object, new: &Object) -> bool {
    let lengths = [old, new].map(|it| it.bytes().len() - it.resource_version_at().len());
    // What differs in length differs in more; most changes end here.
    lengths[0] == lengths[1] && differ_in_spans(old, new)
}

fn differ_in_spans(old: &Object, new: &Object) -> bool {
    let spans = match new.encoding() {
        Encoding::Json => in_json(new.bytes()),
        Encoding::Protobuf => in_protobuf(new.bytes()),
    };
    let Ok(mut spans) = spans else { return false };
    spans.push(new.resource_version_at());
    spans.sort_unstable_by_key(|span| span.start);
    let (mut rest, mut at) = (old.bytes(), 0);
    for span in spans {
        let Some(after) = rest.strip_prefix(&new.bytes()[at..span.start]) else {
            return false;
        };
        let is_version = span == new.resource_version_at();
        let length = match is_version {
            true => old.resource_version_at().len(),
            false => span.len(),
        };
        let Some((value, after)) = after.split_at_checked(length) else {
            return false;
        };
        if new.encoding() == Encoding::Json && !is_plain_string(value) {
            return false;
        }
        (rest, at) = (after, span.end);
    }
    *rest == new.bytes()[at..]
}

/// Whether the value ends where it seems to.
fn is_plain_string(value: &[u8]) -> bool {
    matches!(value, [b'"', text @ .., b'"'] if !text.iter().any(|it| matches!(it, b'"' | b'\\')))
}

fn in_json(bytes: &[u8]) -> Result<Spans, DecodeError> {
    let mut spans = Spans::new();
    let mut scanner = Scanner::new(bytes)?;
    scanner.object(|scanner, key| {
        let (list, value) = match key {
            "metadata" => ("managedFields", "time"),
            "status" => ("conditions", "lastHeartbeatTime"),
            _ => return scanner.skip().map(drop),
        };
        scanner.object(|scanner, key| {
            if key != list {
                return scanner.skip().map(drop);
            }
            scanner.array(|scanner| {
                scanner.object(|scanner, key| {
                    let span = scanner.skip()?;
                    if key == value && is_plain_string(&bytes[span.clone()]) {
                        spans.push(span);
                    }
                    Ok(())
                })
            })
        })
    })?;
    Ok(spans)
}

/// 1 metadata with 17 managedFields with 4 time; 3 status with 4 conditions with 3
/// lastHeartbeatTime.
fn in_protobuf(bytes: &[u8]) -> Result<Spans, DecodeError> {
    let mut spans = Spans::new();
    let message = protobuf::unwrap(bytes)?.raw;
    each(bytes, message, |number, part| {
        let (list, value) = match number {
            1 => (17, 4),
            3 => (4, 3),
            _ => return Ok(()),
        };
        each(bytes, part, |number, element| {
            if number != list {
                return Ok(());
            }
            each(bytes, element, |number, span| {
                spans.extend((number == value).then_some(span));
                Ok(())
            })
        })
    })?;
    Ok(spans)
}

/// Visits the fields of a message that have a length.
fn each(
    bytes: &[u8],
    message: Range<usize>,
    mut visit: impl FnMut(u32, Range<usize>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes, message);
    while let Some(field) = reader.field()? {
        if let protobuf::Value::Bytes(span) = field.value {
            visit(field.number, span)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
