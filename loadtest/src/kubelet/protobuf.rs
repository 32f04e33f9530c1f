//! The protobuf wire format, as far as a hollow kubelet reads and writes it.
//!
//! Owns tags, varints and lengths. Refuses to know messages: `decode` and `encode` name the fields.
//! Invariant: reading never goes past the end of the input and never panics on any bytes.

use thiserror::Error;

/// Bytes that are not protobuf, or not the message that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed protobuf")]
pub struct Malformed;

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    /// Field number.
    pub(crate) number: u64,
    /// The value of a varint field, else 0.
    pub(crate) varint: u64,
    /// The payload of a length-delimited field, else empty.
    pub(crate) bytes: &'a [u8],
    /// Tag and value as they stand in the message.
    pub(crate) raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// The payload as text.
    pub(crate) fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes).map_err(|_| Malformed)
    }
}

/// The fields of a message in the order they were written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads `message`.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn step(&mut self) -> Result<Field<'a>, Malformed> {
        let start = self.0;
        let tag = self.varint()?;
        let (mut varint, mut bytes) = (0, &[][..]);
        match tag & 7 {
            0 => varint = self.varint()?,
            1 => bytes = self.take(8)?,
            2 => {
                let length = self.varint()?;
                bytes = self.take(length)?;
            }
            5 => bytes = self.take(4)?,
            _ => return Err(Malformed),
        }
        Ok(Field {
            number: tag >> 3,
            varint,
            bytes,
            raw: &start[..start.len() - self.0.len()],
        })
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.step();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The payload of the first field with that number.
pub(crate) fn find(message: &[u8], number: u64) -> Result<Option<&[u8]>, Malformed> {
    for field in Fields::new(message) {
        let field = field?;
        if field.number == number {
            return Ok(Some(field.bytes));
        }
    }
    Ok(None)
}

/// A message being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    /// Adds a varint field.
    #[must_use]
    pub(crate) fn varint(mut self, number: u64, value: u64) -> Self {
        self.push_varint(number << 3);
        self.push_varint(value);
        self
    }

    /// Adds a string field.
    #[must_use]
    pub(crate) fn string(self, number: u64, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }

    /// Adds a nested message.
    #[must_use]
    pub(crate) fn message(self, number: u64, value: &Self) -> Self {
        self.bytes(number, &value.0)
    }

    /// Adds a length-delimited field.
    #[must_use]
    pub(crate) fn bytes(mut self, number: u64, value: &[u8]) -> Self {
        self.push_varint(number << 3 | 2);
        self.push_varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds an entry of a `map<string, string>`.
    #[must_use]
    pub(crate) fn entry(self, number: u64, key: &str, value: &str) -> Self {
        self.message(number, &Self::default().string(1, key).string(2, value))
    }

    /// Adds fields that are already encoded.
    #[must_use]
    pub(crate) fn raw(mut self, fields: &[u8]) -> Self {
        self.0.extend_from_slice(fields);
        self
    }

    fn push_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let inner = Message::default().string(1, "a").varint(2, 300);
        let message = Message::default().message(5, &inner).varint(6, u64::MAX);
        let fields: Vec<_> = Fields::new(&message.0).map(Result::unwrap).collect();
        assert_eq!((fields[0].number, fields[0].bytes), (5, &inner.0[..]));
        assert_eq!((fields[1].number, fields[1].varint), (6, u64::MAX));
        assert_eq!([fields[0].raw, fields[1].raw].concat(), message.0);
        assert_eq!(find(&inner.0, 1), Ok(Some(&b"a"[..])));
    }

    #[test]
    fn every_truncation_is_malformed_or_a_shorter_message() {
        let message = Message::default().string(1, "abc").varint(2, 1000).0;
        for end in 1..message.len() {
            let fields: Result<Vec<_>, _> = Fields::new(&message[..end]).collect();
            assert!(fields.is_err() || end == 5, "cut at {end}");
        }
    }
}
