//! Values to protobuf as the apiserver's generated code writes it.
//!
//! Owns what is written and what is not: scalars that are no pointers always, even when zero; unset
//! pointers and empty lists and maps never; fields by ascending number; map entries by key.
//!
//! Messages are written backwards, last field first, as gogo's generated code does: a length is
//! known when its message is complete, so nothing is measured twice and nothing moves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::SchemaError;
use super::json::{extension_json, fields_v1_json, inside, sorted_json, wrong};
use super::scalars;
use super::table::{Field, Shape, Table, Type};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;

/// Bytes in reverse: what is put last comes out first.
#[derive(Debug, Default)]
pub(super) struct Reversed(Vec<u8>);

impl Reversed {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.iter().rev());
    }

    pub(super) fn varint(&mut self, mut value: u64) {
        let mut digits = [0u8; 10];
        let mut count = 0;
        while value >= 0x80 {
            digits[count] = (value as u8) | 0x80;
            value >>= 7;
            count += 1;
        }
        digits[count] = value as u8;
        self.bytes(&digits[..=count]);
    }

    pub(super) fn key(&mut self, number: u32, wire: u32) {
        self.varint(u64::from(number << 3 | wire));
    }

    /// Closes a length-delimited field that began when the buffer had `start` bytes.
    pub(super) fn close(&mut self, number: u32, start: usize) {
        self.varint((self.len() - start) as u64);
        self.key(number, LENGTH);
    }

    pub(super) fn field(&mut self, number: u32, bytes: &[u8]) {
        let start = self.len();
        self.bytes(bytes);
        self.close(number, start);
    }

    pub(super) fn integer(&mut self, number: u32, value: i64) {
        self.varint(value.cast_unsigned());
        self.key(number, VARINT);
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.0.reverse();
        self.0
    }
}

/// Writes one object.
pub(super) struct Writer<'a> {
    pub(super) table: &'a Table,
    pub(super) out: Reversed,
}

impl Writer<'_> {
    pub(super) fn message(
        &mut self,
        message: usize,
        object: &Map<String, Value>,
    ) -> Result<(), SchemaError> {
        let table = self.table;
        let message = table.message(message);
        for index in &message.descending {
            let field = &message.fields[*index];
            if let (true, Type::Message(inlined)) = (field.name.is_empty(), field.scalar) {
                let start = self.out.len();
                self.message(inlined, object)?;
                self.out.close(field.number, start);
                continue;
            }
            let value = object.get(field.name).filter(|value| !value.is_null());
            self.field(field, value)
                .map_err(|error| inside(error, field.name))?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: Option<&Value>) -> Result<(), SchemaError> {
        match (field.shape, value) {
            (Shape::One, None) => self.scalar(field.number, field.scalar, &Value::Null),
            (Shape::Pointer | Shape::List | Shape::Map, None) => Ok(()),
            (Shape::One | Shape::Pointer, Some(value)) => {
                self.scalar(field.number, field.scalar, value)
            }
            (Shape::List, Some(value)) => self.list(field.number, field.scalar, value),
            (Shape::Map, Some(value)) => {
                let map = value.as_object().ok_or_else(|| wrong("a map"))?;
                for (key, value) in map.iter().rev() {
                    let start = self.out.len();
                    self.scalar(2, field.scalar, value)
                        .map_err(|error| inside(error, key))?;
                    self.out.field(1, key.as_bytes());
                    self.out.close(field.number, start);
                }
                Ok(())
            }
        }
    }

    fn list(&mut self, number: u32, scalar: Type, value: &Value) -> Result<(), SchemaError> {
        let list = value.as_array().ok_or_else(|| wrong("a list"))?;
        list.iter()
            .rev()
            .try_for_each(|value| self.scalar(number, scalar, value))
    }

    /// One value; null is the zero value.
    fn scalar(&mut self, number: u32, scalar: Type, value: &Value) -> Result<(), SchemaError> {
        let unset = value.is_null();
        match scalar {
            Type::String if unset => self.out.field(number, b""),
            Type::String => self.out.field(number, scalars::text(value)?.as_bytes()),
            Type::Bool => {
                let value = value.as_bool().or_else(|| unset.then_some(false));
                self.out
                    .integer(number, value.ok_or_else(|| wrong("a boolean"))?.into());
            }
            Type::Int32 | Type::Int64 => {
                let value = if unset { 0 } else { scalars::integer(value)? };
                self.out.integer(number, value);
            }
            Type::Double => {
                let value = value.as_f64().or_else(|| unset.then_some(0.0));
                let value = value.ok_or_else(|| wrong("a number"))?;
                self.out.bytes(&value.to_le_bytes());
                self.out.key(number, FIXED64);
            }
            Type::Bytes if unset => {}
            Type::Bytes => {
                let bytes = STANDARD.decode(scalars::text(value)?);
                self.out.field(number, &bytes.map_err(|_| wrong("base64"))?);
            }
            Type::Any => {}
            _ => {
                let start = self.out.len();
                if !unset {
                    self.nested(scalar, value)?;
                } else if let Type::Message(message) = scalar {
                    self.message(message, &Map::new())?;
                } else {
                    self.zero(scalar);
                }
                self.out.close(number, start);
            }
        }
        Ok(())
    }

    /// The content of an unset wrapper message.
    fn zero(&mut self, scalar: Type) {
        match scalar {
            Type::Quantity => self.out.field(1, b"0"),
            Type::Duration | Type::SchemaOrBool => self.out.integer(1, 0),
            Type::IntOrString => self.int_or_string(0, 0, ""),
            _ => {}
        }
    }

    fn int_or_string(&mut self, is_string: i64, integer: i64, text: &str) {
        self.out.field(3, text.as_bytes());
        self.out.integer(2, integer);
        self.out.integer(1, is_string);
    }

    /// The content of a value that is a message in protobuf.
    fn nested(&mut self, scalar: Type, value: &Value) -> Result<(), SchemaError> {
        match scalar {
            Type::Time => {
                let time = scalars::Seconds::parse(value)?;
                self.out.integer(2, 0);
                self.out.integer(1, time.0);
            }
            Type::MicroTime => {
                let time = scalars::Micros::parse(value)?;
                self.out.integer(2, i64::from(time.nanos));
                self.out.integer(1, time.seconds);
            }
            Type::Duration => self.out.integer(1, scalars::duration_nanos(value)?),
            Type::Quantity => self.out.field(1, scalars::quantity_text(value)?.as_bytes()),
            Type::IntOrString => match value {
                Value::String(text) => self.int_or_string(1, 0, text),
                other => self.int_or_string(0, scalars::integer(other)?, ""),
            },
            Type::FieldsV1 => self.out.field(1, &fields_v1_json(value)),
            Type::RawExtension => self.out.field(1, &extension_json(value)?),
            Type::Json => self.out.field(1, &sorted_json(value)),
            Type::Strings => self.list(1, Type::String, value)?,
            Type::SchemaOrBool | Type::SchemaOrArray | Type::SchemaOrStrings => {
                self.union(scalar, value)?;
            }
            Type::Message(message) => {
                let object = value.as_object().ok_or_else(|| wrong("an object"))?;
                self.message(message, object)?;
            }
            Type::String | Type::Bool | Type::Int32 | Type::Int64 => {}
            Type::Double | Type::Bytes | Type::Any => {}
        }
        Ok(())
    }

    fn union(&mut self, scalar: Type, value: &Value) -> Result<(), SchemaError> {
        let schema = Type::Message(self.table.schema_props());
        match (scalar, value) {
            (Type::SchemaOrBool, Value::Object(_)) => {
                self.scalar(2, schema, value)?;
                self.out.integer(1, 1);
                Ok(())
            }
            (Type::SchemaOrBool, _) => self.scalar(1, Type::Bool, value),
            (_, Value::Object(_)) => self.scalar(1, schema, value),
            (Type::SchemaOrArray, _) => self.list(2, schema, value),
            _ => self.list(2, Type::String, value),
        }
    }
}
