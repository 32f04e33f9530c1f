//! Values to JSON as Go's encoder prints the apiserver's structs.
//!
//! Owns field order, the omission rules and Go's escaping. Built-in objects follow the table;
//! everything the table leaves open (custom resources, raw extensions, defaults in CRD schemas) is
//! printed with sorted keys.

use std::cmp::Ordering;
use std::io::Write as _;

use serde_json::{Map, Number, Value};

use super::scalars;
use super::table::{Field, Omit, Shape, Table, Type};
use super::{Schema, SchemaError};

/// Where a value with the wrong type was found, and what was expected; the path grows outwards.
pub(super) fn wrong(expected: &'static str) -> SchemaError {
    SchemaError::WrongType {
        field: String::new(),
        expected,
    }
}

/// Adds the name of the enclosing field to an error.
pub(super) fn inside(error: SchemaError, name: &str) -> SchemaError {
    match error {
        SchemaError::WrongType { field, expected } if !name.is_empty() => {
            let field = if field.is_empty() {
                name.to_owned()
            } else {
                format!("{name}.{field}")
            };
            SchemaError::WrongType { field, expected }
        }
        other => other,
    }
}

/// Writes one object or nested message.
pub(super) struct Writer<'a> {
    pub(super) table: &'a Table,
    pub(super) out: Vec<u8>,
}

impl Writer<'_> {
    /// A whole object; `head` is its API version and kind, printed first.
    pub(super) fn object(
        &mut self,
        message: usize,
        object: &Map<String, Value>,
        head: Option<(&str, &str)>,
    ) -> Result<(), SchemaError> {
        self.out.push(b'{');
        let mut first = true;
        if let Some((api_version, kind)) = head {
            self.head(api_version, kind, &mut first);
        }
        self.fields(message, object, &mut first)?;
        self.out.push(b'}');
        Ok(())
    }

    fn head(&mut self, api_version: &str, kind: &str, first: &mut bool) {
        for (name, text) in [("kind", kind), ("apiVersion", api_version)] {
            if !text.is_empty() {
                self.name(name, first);
                write_json_string(&mut self.out, text);
            }
        }
    }

    fn fields(
        &mut self,
        message: usize,
        object: &Map<String, Value>,
        first: &mut bool,
    ) -> Result<(), SchemaError> {
        let table = self.table;
        for field in &table.message(message).fields {
            if field.name.is_empty() {
                if let Type::Message(inlined) = field.scalar {
                    self.fields(inlined, object, first)?;
                }
                continue;
            }
            let value = object.get(field.name).filter(|value| !value.is_null());
            if is_omitted(field, value) {
                continue;
            }
            self.name(field.name, first);
            self.field(field, value)
                .map_err(|error| inside(error, field.name))?;
        }
        Ok(())
    }

    fn name(&mut self, name: &str, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn field(&mut self, field: &Field, value: Option<&Value>) -> Result<(), SchemaError> {
        let Some(value) = value else {
            return match field.shape {
                Shape::One => self.zero(field.scalar),
                Shape::Pointer | Shape::List | Shape::Map => {
                    self.out.extend_from_slice(b"null");
                    Ok(())
                }
            };
        };
        match field.shape {
            Shape::One | Shape::Pointer => self.scalar(field.scalar, value),
            Shape::List => self.list(field.scalar, value),
            Shape::Map => {
                let map = value.as_object().ok_or_else(|| wrong("a map"))?;
                self.out.push(b'{');
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    write_json_string(&mut self.out, key);
                    self.out.push(b':');
                    self.scalar(field.scalar, value)
                        .map_err(|error| inside(error, key))?;
                }
                self.out.push(b'}');
                Ok(())
            }
        }
    }

    fn list(&mut self, scalar: Type, value: &Value) -> Result<(), SchemaError> {
        let list = value.as_array().ok_or_else(|| wrong("a list"))?;
        self.out.push(b'[');
        for (index, value) in list.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.scalar(scalar, value)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn zero(&mut self, scalar: Type) -> Result<(), SchemaError> {
        let text = match scalar {
            Type::String => "\"\"",
            Type::Bool => "false",
            Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => "0",
            Type::Quantity => "\"0\"",
            Type::Duration => "\"0s\"",
            Type::SchemaOrBool => "false",
            Type::Bytes | Type::Time | Type::MicroTime | Type::FieldsV1 => "null",
            Type::RawExtension | Type::Strings | Type::Json | Type::Any => "null",
            Type::SchemaOrArray | Type::SchemaOrStrings => "null",
            Type::Message(message) => return self.object(message, &Map::new(), None),
        };
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn scalar(&mut self, scalar: Type, value: &Value) -> Result<(), SchemaError> {
        if value.is_null() {
            return self.zero(scalar);
        }
        let out = &mut self.out;
        match scalar {
            Type::String | Type::Bytes => write_json_string(out, scalars::text(value)?),
            Type::Bool => {
                let value = value.as_bool().ok_or_else(|| wrong("a boolean"))?;
                out.extend_from_slice(if value { b"true" } else { b"false" });
            }
            Type::Int32 | Type::Int64 => {
                let value = scalars::integer(value)?;
                write!(out, "{value}").expect("a Vec takes any bytes");
            }
            Type::Double => {
                write_number(out, value.as_number().ok_or_else(|| wrong("a number"))?);
            }
            Type::Time => write_json_string(out, &scalars::Seconds::parse(value)?.text()),
            Type::MicroTime => write_json_string(out, &scalars::Micros::parse(value)?.text()),
            Type::Duration => write_json_string(out, &scalars::duration_text(value)?),
            Type::Quantity => write_json_string(out, &scalars::quantity_text(value)?),
            Type::IntOrString => match value {
                Value::String(text) => write_json_string(out, text),
                other => {
                    write!(out, "{}", scalars::integer(other)?).expect("a Vec takes any bytes")
                }
            },
            Type::FieldsV1 => write_sorted(out, value, field_path_order),
            Type::RawExtension => write_extension(out, value)?,
            Type::Json | Type::Any => write_sorted(out, value, str::cmp),
            Type::Strings => return self.list(Type::String, value),
            Type::SchemaOrBool | Type::SchemaOrArray | Type::SchemaOrStrings => {
                return self.union(scalar, value);
            }
            Type::Message(message) => {
                let object = value.as_object().ok_or_else(|| wrong("an object"))?;
                let is_kind = self.table.message(message).is_kind;
                let word = |name| object.get(name).and_then(Value::as_str).unwrap_or_default();
                let head = is_kind.then(|| (word("apiVersion"), word("kind")));
                return self.object(message, object, head);
            }
        }
        Ok(())
    }

    /// The either-or types of CRD schemas: a schema, or a boolean, schemas or names.
    fn union(&mut self, scalar: Type, value: &Value) -> Result<(), SchemaError> {
        let schema = Type::Message(self.table.schema_props());
        match (scalar, value) {
            (_, Value::Object(_)) => self.scalar(schema, value),
            (Type::SchemaOrBool, _) => self.scalar(Type::Bool, value),
            (Type::SchemaOrArray, _) => self.list(schema, value),
            _ => self.list(Type::String, value),
        }
    }
}

/// Whether JSON leaves the field out; `value` is never null.
fn is_omitted(field: &Field, value: Option<&Value>) -> bool {
    match (field.omit, value) {
        (Omit::Never, _) => false,
        (Omit::Zero, value) => value.is_none(),
        (Omit::Empty, None) => field.shape != Shape::One || !field.scalar.is_struct(),
        (Omit::Empty, Some(value)) => match field.shape {
            Shape::Pointer => false,
            Shape::One if field.scalar.is_struct() => false,
            Shape::One | Shape::List | Shape::Map => is_empty(value),
        },
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// An embedded object: in struct order when it is a kind of the table, else with sorted keys.
fn write_extension(out: &mut Vec<u8>, value: &Value) -> Result<(), SchemaError> {
    let word = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (word("apiVersion"), word("kind"));
    let schema = Schema::builtin();
    if schema.knows(api_version, kind) {
        out.extend_from_slice(&schema.json(api_version, kind, value)?);
    } else {
        write_sorted(out, value, str::cmp);
    }
    Ok(())
}

/// The JSON of an embedded object, as protobuf carries it.
pub(super) fn extension_json(value: &Value) -> Result<Vec<u8>, SchemaError> {
    let mut out = Vec::new();
    write_extension(&mut out, value)?;
    Ok(out)
}

/// The JSON of a managed field set, as protobuf carries it.
pub(super) fn fields_v1_json(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_sorted(&mut out, value, field_path_order);
    out
}

/// A value with every map sorted, compact, escaped as Go does: the form of custom resources.
pub fn sorted_json(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_sorted(&mut out, value, str::cmp);
    out
}

fn write_sorted(out: &mut Vec<u8>, value: &Value, order: fn(&str, &str) -> Ordering) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_json_string(out, text),
        Value::Array(list) => {
            out.push(b'[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_sorted(out, value, order);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|(left, _), (right, _)| order(left, right));
            out.push(b'{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json_string(out, key);
                out.push(b':');
                write_sorted(out, value, order);
            }
            out.push(b'}');
        }
    }
}

/// The order of managed field paths: `k:{…}` elements compare by their keys, numbers as numbers.
fn field_path_order(left: &str, right: &str) -> Ordering {
    let keys = |text: &str| {
        let keys = text.strip_prefix("k:")?;
        serde_json::from_str::<Map<String, Value>>(keys).ok()
    };
    let (Some(left_keys), Some(right_keys)) = (keys(left), keys(right)) else {
        return left.cmp(right);
    };
    for ((left_name, left_value), (right_name, right_value)) in left_keys.iter().zip(&right_keys) {
        let names = left_name.cmp(right_name);
        let values = match (left_value.as_i64(), right_value.as_i64()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => left_value.to_string().cmp(&right_value.to_string()),
        };
        if names.then(values) != Ordering::Equal {
            return names.then(values);
        }
    }
    left_keys.len().cmp(&right_keys.len())
}

/// Appends a JSON string as Go's encoder writes it: `<`, `>`, `&`, U+2028 and U+2029 escaped.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0..0x20 | b'<' | b'>' | b'&' => &[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ],
            0xe2 if bytes[index..].starts_with(b"\xe2\x80\xa8") => b"\\u2028",
            0xe2 if bytes[index..].starts_with(b"\xe2\x80\xa9") => b"\\u2029",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..index]);
        out.extend_from_slice(escape);
        start = index + if *byte == 0xe2 { 3 } else { 1 };
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// A number as Go prints it: shortest digits, exponents only below 1e-6 and from 1e21.
fn write_number(out: &mut Vec<u8>, number: &Number) {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        write!(out, "{number}").expect("a Vec takes any bytes");
        return;
    };
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{float:e}");
        let text = if text.contains("e-") {
            text
        } else {
            text.replace('e', "e+")
        };
        out.extend_from_slice(text.as_bytes());
    } else {
        write!(out, "{float}").expect("a Vec takes any bytes");
    }
}
