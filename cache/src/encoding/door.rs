//! A door into the scanner and the reader, for the package that fuzzes them.
//!
//! Owns nothing: each function calls one parser and hands its result out as plain values. It exists
//! only with the feature `door`, so that the parsers stay private to the crate. No stability
//! whatsoever is promised.

use std::ops::Range;

use super::DecodeError;
use super::json::{self, Scanner};
use super::protobuf::{self, Reader};

/// Where something stands in the input.
pub type Span = Range<usize>;

/// Checks that the input is one JSON value.
pub fn json(input: &[u8]) -> Result<Span, DecodeError> {
    let mut scanner = Scanner::new(input)?;
    let span = scanner.skip()?;
    scanner.end().map(|()| span)
}

/// The members of the one JSON object the input is: keys unescaped, and where the values stand.
pub fn json_members(input: &[u8]) -> Result<Vec<(String, Span)>, DecodeError> {
    let mut scanner = Scanner::new(input)?;
    let mut members = Vec::new();
    scanner.object(|scanner, key| {
        members.push((key.to_owned(), scanner.skip()?));
        Ok(())
    })?;
    scanner.end().map(|()| members)
}

/// Where the elements stand of the one JSON array the input is.
pub fn json_elements(input: &[u8]) -> Result<Vec<Span>, DecodeError> {
    let mut scanner = Scanner::new(input)?;
    let mut elements = Vec::new();
    scanner.array(|scanner| {
        elements.push(scanner.skip()?);
        Ok(())
    })?;
    scanner.end().map(|()| elements)
}

/// The text of a JSON string that `json` accepted, given with its quotes.
pub fn unescape(quoted: &str) -> String {
    json::unescape(quoted).into_owned()
}

/// The value of a protobuf field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A varint.
    Varint(u64),
    /// Where a length-delimited payload stands.
    Bytes(Span),
    /// Four or eight bytes.
    Fixed,
}

/// Number, place and value of every field of the message the input is.
pub fn protobuf(input: &[u8]) -> Result<Vec<(u32, Span, Value)>, DecodeError> {
    let mut reader = Reader::new(input, 0..input.len());
    let mut fields = Vec::new();
    while let Some(field) = reader.field()? {
        let value = match field.value {
            protobuf::Value::Varint(number) => Value::Varint(number),
            protobuf::Value::Bytes(span) => Value::Bytes(span),
            protobuf::Value::Fixed => Value::Fixed,
        };
        fields.push((field.number, field.span, value));
    }
    Ok(fields)
}
