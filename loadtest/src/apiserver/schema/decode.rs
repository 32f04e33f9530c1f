//! Protobuf to values.
//!
//! Owns bounds: every length is checked against what is left, nesting is limited, and unknown
//! fields are skipped as the apiserver's generated code does. Zero values that JSON would leave out
//! do not enter the value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::SchemaError;
use super::scalars;
use super::table::{Field, Omit, Shape, Table, Type};

/// How deep messages may nest; CRD schemas are the deepest in practice.
const DEPTH_MAX: usize = 100;

/// One field as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Walks the fields of one message.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number and content.
    pub(super) fn next(&mut self) -> Result<Option<(usize, Wire<'a>)>, SchemaError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = usize::try_from(key >> 3).map_err(|_| SchemaError::Malformed("key"))?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(
                self.take(8)?.try_into().expect("eight bytes were taken"),
            )),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length);
                Wire::Bytes(self.take(length.map_err(|_| SchemaError::Malformed("length"))?)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(SchemaError::Malformed("wire type")),
        };
        if number == 0 {
            return Err(SchemaError::Malformed("field number 0"));
        }
        Ok(Some((number, wire)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], SchemaError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(SchemaError::Malformed("truncated"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, SchemaError> {
        let mut value = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(SchemaError::Malformed("varint"))
    }
}

/// Reads one object.
pub(super) struct Reader<'a> {
    pub(super) table: &'a Table,
    pub(super) depth: usize,
}

impl Reader<'_> {
    /// Adds the fields of a message to `object`.
    pub(super) fn message(
        &mut self,
        message: usize,
        bytes: &[u8],
        object: &mut Map<String, Value>,
    ) -> Result<(), SchemaError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SchemaError::Malformed("nested too deeply"));
        }
        let table = self.table;
        let message = table.message(message);
        let mut fields = Fields(bytes);
        while let Some((number, wire)) = fields.next()? {
            let Some(index) = message.by_number.get(number).copied().flatten() else {
                continue;
            };
            let field = &message.fields[index];
            if let (true, Type::Message(inlined), Wire::Bytes(bytes)) =
                (field.name.is_empty(), field.scalar, wire)
            {
                self.message(inlined, bytes, object)?;
            } else {
                self.field(field, wire, object)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        wire: Wire<'_>,
        object: &mut Map<String, Value>,
    ) -> Result<(), SchemaError> {
        if field.shape == Shape::Map {
            let Wire::Bytes(entry) = wire else {
                return Err(SchemaError::Malformed("map entry"));
            };
            let (key, value) = self.entry(field.scalar, entry)?;
            let map = object
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()
                .expect("a map field holds a map")
                .insert(key, value);
            return Ok(());
        }
        let value = self.scalar(field.scalar, wire)?;
        match field.shape {
            Shape::List => {
                let list = object
                    .entry(field.name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut()
                    .expect("a list field holds a list")
                    .push(value);
            }
            Shape::One if value.is_null() || field.omit == Omit::Empty && is_zero(&value) => {
                object.remove(field.name);
            }
            Shape::One | Shape::Pointer | Shape::Map => {
                object.insert(field.name.to_owned(), value);
            }
        }
        Ok(())
    }

    fn entry(&mut self, scalar: Type, entry: &[u8]) -> Result<(String, Value), SchemaError> {
        let (mut key, mut value) = (String::new(), None);
        let mut fields = Fields(entry);
        while let Some((number, wire)) = fields.next()? {
            match (number, wire) {
                (1, Wire::Bytes(bytes)) => key = text(bytes)?.to_owned(),
                (2, wire) => value = Some(self.scalar(scalar, wire)?),
                _ => {}
            }
        }
        let unset = match scalar {
            Type::String | Type::Bytes => Value::from(""),
            Type::Message(_) => Value::Object(Map::new()),
            _ => Value::Null,
        };
        Ok((key, value.unwrap_or(unset)))
    }

    fn scalar(&mut self, scalar: Type, wire: Wire<'_>) -> Result<Value, SchemaError> {
        Ok(match (scalar, wire) {
            (Type::String, Wire::Bytes(bytes)) => Value::from(text(bytes)?),
            (Type::Bool, Wire::Varint(value)) => Value::from(value != 0),
            (Type::Int32, Wire::Varint(value)) => Value::from(i64::from(value as i32)),
            (Type::Int64, Wire::Varint(value)) => Value::from(value.cast_signed()),
            (Type::Double, Wire::Fixed64(bits)) => whole_or_float(f64::from_bits(bits)),
            (Type::Bytes, Wire::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
            (Type::Message(message), Wire::Bytes(bytes)) => {
                let mut object = Map::new();
                self.message(message, bytes, &mut object)?;
                Value::Object(object)
            }
            (Type::Any, _) => Value::Null,
            (wrapped, Wire::Bytes(bytes)) => self.wrapped(wrapped, bytes)?,
            _ => return Err(SchemaError::Malformed("wire type of a known field")),
        })
    }

    /// A value that is a message of its own in protobuf and something simpler in JSON.
    fn wrapped(&mut self, scalar: Type, bytes: &[u8]) -> Result<Value, SchemaError> {
        let mut integers = [0i64; 4];
        let (mut raw, mut list) = (None, Vec::new());
        let mut schema = None;
        let props = self.table.schema_props();
        let mut fields = Fields(bytes);
        while let Some((number, wire)) = fields.next()? {
            match (scalar, number, wire) {
                (_, 1..4, Wire::Varint(value)) => integers[number] = value.cast_signed(),
                (Type::SchemaOrBool, 2, Wire::Bytes(bytes))
                | (Type::SchemaOrArray | Type::SchemaOrStrings, 1, Wire::Bytes(bytes)) => {
                    schema = Some(self.scalar(Type::Message(props), Wire::Bytes(bytes))?);
                }
                (Type::SchemaOrArray, 2, wire) => {
                    list.push(self.scalar(Type::Message(props), wire)?);
                }
                (Type::SchemaOrStrings, 2, wire) | (Type::Strings, 1, wire) => {
                    list.push(self.scalar(Type::String, wire)?);
                }
                (_, _, Wire::Bytes(bytes)) => raw = Some(bytes),
                _ => {}
            }
        }
        Ok(match scalar {
            _ if schema.is_some() => schema.unwrap_or_default(),
            Type::Time | Type::MicroTime if bytes.is_empty() => Value::Null,
            Type::Time => Value::from(scalars::Seconds(integers[1]).text()),
            Type::MicroTime => {
                let nanos =
                    i32::try_from(integers[2]).map_err(|_| SchemaError::Malformed("time"))?;
                Value::from(
                    scalars::Micros {
                        seconds: integers[1],
                        nanos,
                    }
                    .text(),
                )
            }
            Type::Duration => Value::from(scalars::go_duration(integers[1])),
            Type::Quantity => Value::from(text(raw.unwrap_or(b"0"))?),
            Type::IntOrString if integers[1] == 1 => Value::from(text(raw.unwrap_or_default())?),
            Type::IntOrString => Value::from(integers[2]),
            Type::SchemaOrBool => Value::from(integers[1] != 0),
            Type::Strings | Type::SchemaOrArray | Type::SchemaOrStrings => Value::Array(list),
            _ => match raw {
                Some(raw) => serde_json::from_slice(raw)
                    .map_err(|_| SchemaError::Malformed("embedded JSON"))?,
                None => Value::Null,
            },
        })
    }
}

/// UTF-8 text; the apiserver stores nothing else.
fn text(bytes: &[u8]) -> Result<&str, SchemaError> {
    std::str::from_utf8(bytes).map_err(|_| SchemaError::Malformed("text is not UTF-8"))
}

fn whole_or_float(float: f64) -> Value {
    let whole = float as i64;
    if whole as f64 == float {
        Value::from(whole)
    } else {
        Value::from(float)
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    }
}
