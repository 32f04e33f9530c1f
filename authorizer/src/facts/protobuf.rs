//! Walks protobuf along a schema.
//!
//! Owns the wire format as far as Kubernetes uses it: varints, lengths, fixed values that are
//! skipped. Refuses groups, and lengths that lead out of their message. A message is visited where
//! it lies; texts are handed out as parts of the input.

use std::borrow::Cow;

use super::FactsError;
use super::schema::{Message, Sink, Value};

/// The number of `raw` in `runtime.Unknown`.
const RAW: u32 = 2;
/// The number of `contentEncoding` there.
const CONTENT_ENCODING: u32 = 3;
/// The number of the key in the entries of every map.
const KEY: u32 = 1;

/// What an envelope (`runtime.Unknown`, without the magic in front) holds.
pub(super) fn unwrap(envelope: &[u8]) -> Result<&[u8], FactsError> {
    let mut reader = Reader { rest: envelope };
    let mut raw: &[u8] = &[];
    while let Some(field) = reader.field()? {
        match (field.number, field.payload) {
            (RAW, Some(found)) => raw = found,
            (CONTENT_ENCODING, Some(encoding)) if !encoding.is_empty() => {
                return Err(FactsError::Protobuf("content encoding"));
            }
            _other => {}
        }
    }
    Ok(raw)
}

/// Walks one message.
pub(super) fn walk<'a, S: Sink<'a>>(
    input: &'a [u8],
    message: &'static Message<S::Text, S::Item>,
    sink: &mut S,
) -> Result<(), FactsError> {
    let mut reader = Reader { rest: input };
    while let Some(found) = reader.field()? {
        let Some(field) = message.numbered(found.number) else {
            continue;
        };
        let payload = found.payload.ok_or(FactsError::Protobuf("field type"))?;
        match field.value {
            Value::Text(which) => sink.text(which, Cow::Borrowed(utf8(payload)?)),
            Value::Keys(which) => sink.text(which, Cow::Borrowed(key(payload)?)),
            Value::Message(fields) => walk(payload, fields, sink)?,
            Value::Item(which, fields) => {
                sink.enter(which);
                walk(payload, fields, sink)?;
                sink.leave(which);
            }
        }
    }
    Ok(())
}

/// The key of a map's entry.
fn key(entry: &[u8]) -> Result<&str, FactsError> {
    let mut reader = Reader { rest: entry };
    let mut key: &[u8] = &[];
    while let Some(field) = reader.field()? {
        if let (KEY, Some(found)) = (field.number, field.payload) {
            key = found;
        }
    }
    utf8(key)
}

fn utf8(bytes: &[u8]) -> Result<&str, FactsError> {
    std::str::from_utf8(bytes).map_err(|_invalid| FactsError::Protobuf("text"))
}

struct Reader<'a> {
    rest: &'a [u8],
}

struct WireField<'a> {
    number: u32,
    /// Of a field that has a length.
    payload: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<WireField<'a>>, FactsError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number =
            u32::try_from(key >> 3).map_err(|_overflow| FactsError::Protobuf("field number"))?;
        let payload = match key & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => {
                self.take(8)?;
                None
            }
            2 => {
                let length = self.varint()?;
                Some(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                None
            }
            _ => return Err(FactsError::Protobuf("wire type")),
        };
        Ok(Some(WireField { number, payload }))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], FactsError> {
        let (taken, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length))
            .ok_or(FactsError::Protobuf("length"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, FactsError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self
                .rest
                .split_first()
                .ok_or(FactsError::Protobuf("varint"))?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(FactsError::Protobuf("varint"))
    }
}
