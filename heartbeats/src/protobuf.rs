//! Protobuf as it stands in bytes: fields, varints, and the magic of an envelope.
//!
//! Owns the wire format as far as leases and nodes use it: varints and length-delimited values, in
//! their shortest spelling. Everything else is refused.

use crate::Unread;

pub(crate) const MAGIC: &[u8] = b"k8s\0";

pub(crate) const VARINT: u64 = 0;
pub(crate) const LENGTH: u64 = 2;

/// What the bytes of one varint say.
pub(crate) fn number(varint: &[u8]) -> Option<u64> {
    let mut reader = Reader { rest: varint };
    let number = reader.varint().ok()?;
    reader.rest.is_empty().then_some(number)
}

pub(crate) fn put_message(out: &mut Vec<u8>, number: u64, message: &[u8]) {
    put_varint(out, number << 3 | LENGTH);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

pub(crate) struct WireField<'a> {
    pub(crate) number: u64,
    pub(crate) wire: u64,
    /// The payload, or the bytes of the varint.
    pub(crate) value: &'a [u8],
}

impl<'a> WireField<'a> {
    /// The payload of what has a length.
    pub(crate) const fn message(&self) -> Result<&'a [u8], Unread> {
        match self.wire {
            LENGTH => Ok(self.value),
            _ => Err(Unread::Form),
        }
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn field(&mut self) -> Result<WireField<'a>, Unread> {
        let tag = self.varint()?;
        let (number, wire) = (tag >> 3, tag & 7);
        let value = match wire {
            VARINT => {
                let from = self.rest;
                self.varint()?;
                &from[..from.len() - self.rest.len()]
            }
            LENGTH => {
                let length = usize::try_from(self.varint()?).map_err(|_overflow| Unread::Form)?;
                let (value, rest) = self.rest.split_at_checked(length).ok_or(Unread::Form)?;
                self.rest = rest;
                value
            }
            _ => return Err(Unread::Form),
        };
        Ok(WireField {
            number,
            wire,
            value,
        })
    }

    /// A number in its shortest form.
    pub(crate) fn varint(&mut self) -> Result<u64, Unread> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Unread::Form)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 {
                    Err(Unread::Form)
                } else {
                    Ok(number)
                };
            }
        }
        Err(Unread::Form)
    }
}
