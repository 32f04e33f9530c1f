//! A protobuf reader and writer for the few messages the cache handles, on the wire level.
//!
//! Owns varints, fields and their bounds. Fields nobody asked for are skipped, wrong lengths are
//! errors, groups are refused (no Kubernetes message has them). It refuses to decode messages into
//! structs: a walk along a [`Shape`] reports where values stand, and messages are rewritten by
//! copying everything but the one field that changes.
//!
//! Rejected: prost and friends, which decode and own every field of a Pod to learn its name, and
//! need a schema of every kind, while the bytes must be kept as received anyway.

use std::ops::Range;

use bytes::BufMut;

use super::DecodeError;
use super::lift::Captures;
use crate::fields::shape::{Capture, NodeId, ROOT, Shape, WireStep};

mod object;

pub(super) use object::{
    ENVELOPE_TAIL, check_kind, envelope_len, lift, lift_message, push_envelope,
    replace_resource_version, unwrap,
};

/// A field of a message, its ranges relative to the whole input.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// The whole field, key included.
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

/// The value of a field.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Varint(u64),
    /// A string, bytes or a message, without its length.
    Bytes(Range<usize>),
    /// Four or eight bytes; nothing the cache reads is encoded so.
    Fixed,
}

impl Field {
    /// # Errors
    /// A field of another wire type.
    pub(super) fn bytes(&self) -> Result<Range<usize>, DecodeError> {
        match &self.value {
            Value::Bytes(span) => Ok(span.clone()),
            Value::Varint(_) | Value::Fixed => Err(self.mistyped()),
        }
    }

    /// # Errors
    /// A field of another wire type.
    pub(super) fn varint(&self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Varint(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed => Err(self.mistyped()),
        }
    }

    fn mistyped(&self) -> DecodeError {
        DecodeError::Malformed {
            what: "protobuf field type",
            at: self.span.start,
        }
    }
}

/// Reads the fields of one message, which stands at a range of the input.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader of the message at `message`, which must lie within `input`.
    pub(super) fn new(input: &'a [u8], message: Range<usize>) -> Self {
        Self {
            input,
            at: message.start,
            end: message.end,
        }
    }

    /// The next field, or `None` at the end of the message.
    pub(super) fn field(&mut self) -> Result<Option<Field>, DecodeError> {
        if self.at == self.end {
            return Ok(None);
        }
        let start = self.at;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or_else(|| self.malformed("protobuf field number"))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.advance(8).map(|_skipped| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length)
                    .map_err(|_overflow| self.malformed("protobuf length"))?;
                Value::Bytes(self.advance(length)?)
            }
            5 => self.advance(4).map(|_skipped| Value::Fixed)?,
            _ => return Err(self.malformed("protobuf wire type")),
        };
        Ok(Some(Field {
            number,
            span: start..self.at,
            value,
        }))
    }

    fn advance(&mut self, length: usize) -> Result<Range<usize>, DecodeError> {
        if length > self.end - self.at {
            return Err(self.malformed("protobuf length"));
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.input[..self.end].get(self.at).copied();
            let byte = byte.ok_or_else(|| self.malformed("protobuf varint"))?;
            if shift == 63 && byte > 1 {
                break;
            }
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.malformed("protobuf varint"))
    }

    fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { what, at: self.at }
    }
}

/// Walks the message at `message` along the shape.
pub(super) fn walk(
    input: &[u8],
    message: Range<usize>,
    shape: &Shape<WireStep>,
    captures: &mut Captures,
) -> Result<(), DecodeError> {
    walk_node(input, message, (shape, ROOT), captures)
}

fn walk_node(
    input: &[u8],
    message: Range<usize>,
    (shape, node): (&Shape<WireStep>, NodeId),
    captures: &mut Captures,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(input, message);
    while let Some(field) = reader.field()? {
        let Some(&(step, next)) = shape
            .steps(node)
            .iter()
            .find(|(step, _)| step.number == field.number)
        else {
            continue;
        };
        if std::mem::replace(&mut captures.visited[next], true) && step.first {
            continue;
        }
        match (shape.capture(next), &field.value) {
            (Capture::Value(slot), Value::Bytes(span)) => {
                captures.values[slot] = Some(span.clone());
            }
            (Capture::Value(slot), Value::Varint(number)) => captures.numbers.push((slot, *number)),
            (Capture::Value(_), Value::Fixed) => return Err(field.mistyped()),
            (Capture::Labels, _) => captures.labels.push(entry(input, field.bytes()?)?),
            (Capture::Nothing, _) => walk_node(input, field.bytes()?, (shape, next), captures)?,
        }
    }
    Ok(())
}

/// Key and value of a map entry; either may be left out.
pub(super) fn entry(
    input: &[u8],
    message: Range<usize>,
) -> Result<(Range<usize>, Range<usize>), DecodeError> {
    let (mut key, mut value) = (0..0, 0..0);
    let mut reader = Reader::new(input, message);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => key = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Bytes of a varint.
pub(super) const fn varint_len(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Bytes of a length-delimited field below number 16 with a payload of `len` bytes.
pub(super) const fn bytes_field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends a varint.
pub(super) fn push_varint(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// Appends key and length of a length-delimited field; the payload follows.
pub(super) fn push_header(out: &mut impl BufMut, number: u8, len: usize) {
    push_varint(out, u64::from(number) << 3 | 2);
    push_varint(out, len as u64);
}

/// Appends an integer field.
pub(super) fn push_number(out: &mut impl BufMut, number: u8, value: u64) {
    push_varint(out, u64::from(number) << 3);
    push_varint(out, value);
}

/// Appends a length-delimited field.
pub(super) fn push_bytes(out: &mut impl BufMut, number: u8, payload: &[u8]) {
    push_header(out, number, payload.len());
    out.put_slice(payload);
}

#[cfg(test)]
mod tests;
