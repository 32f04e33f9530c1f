//! The built-in kinds: their fields, and the exact bytes the apiserver writes for them.
//!
//! Owns the table `types.txt` (which message has which fields, in the order and under the numbers
//! kube-apiserver 1.36 uses) and the four codecs that walk it: value to JSON, value to protobuf,
//! protobuf to value, and the empty object of a bookmark. An object in memory is a
//! `serde_json::Value`; this module alone decides how it looks on the wire. Lists, watch events and
//! the `k8s\0` envelope are byte operations on encoded objects and live in `schema/frames.rs`.
//!
//! Refuses: defaulting, validation and versions of an API other than the one served. A kind the
//! table does not know is an error here; custom resources use [`sorted_json`].
//!
//! Invariant: for every object the apiserver can store, JSON → value → JSON and protobuf → value →
//! protobuf give back the same bytes.

mod decode;
mod frames;
mod json;
mod parse;
mod protobuf;
mod scalars;
mod table;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

pub use self::frames::{
    Envelope, ListMeta, custom_list_json, envelope, list_json, list_protobuf, open_envelope,
    watch_event_json, watch_event_protobuf,
};
pub use self::json::{sorted_json, write_json_string};
pub use self::parse::parse_json;
use self::protobuf::Reversed;
use self::table::Table;

/// What kept an object from being encoded or decoded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SchemaError {
    /// The table has no such kind.
    #[error("no kind {kind:?} in {api_version:?}")]
    UnknownKind {
        /// `v1` or `group/version`.
        api_version: String,
        /// The kind asked for.
        kind: String,
    },
    /// A JSON value has another type than its field.
    #[error("{field}: expected {expected}")]
    WrongType {
        /// Dotted path of JSON names, outermost first.
        field: String,
        /// What the table says.
        expected: &'static str,
    },
    /// The bytes are no protobuf message of this kind.
    #[error("malformed protobuf: {0}")]
    Malformed(&'static str),
}

/// The table of built-in kinds.
#[derive(Debug)]
pub struct Schema {
    table: Table,
}

static BUILTIN: LazyLock<Schema> = LazyLock::new(|| Schema {
    table: Table::parse(include_str!("schema/types.txt")),
});

impl Schema {
    /// The one table, parsed at first use.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Whether the kind is in the table.
    pub fn knows(&self, api_version: &str, kind: &str) -> bool {
        self.table.kind(api_version, kind).is_some()
    }

    /// The object as the apiserver prints it: compact, struct order, `kind` and `apiVersion` first,
    /// no newline at the end. Both are taken from the arguments, not from the object.
    pub fn json(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Vec<u8>, SchemaError> {
        self.write_json(api_version, kind, object, Some((api_version, kind)))
    }

    /// The same without `kind` and `apiVersion`: the form of an item in a typed list.
    pub fn json_item(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Vec<u8>, SchemaError> {
        self.write_json(api_version, kind, object, None)
    }

    fn write_json(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
        head: Option<(&str, &str)>,
    ) -> Result<Vec<u8>, SchemaError> {
        let message = self.message(api_version, kind)?;
        let mut writer = self::json::Writer {
            table: &self.table,
            out: Vec::with_capacity(1024),
        };
        writer.object(message, fields(object)?, head)?;
        Ok(writer.out)
    }

    /// The object's own protobuf message, without the envelope ([`envelope`] adds it).
    pub fn protobuf(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Vec<u8>, SchemaError> {
        let message = self.message(api_version, kind)?;
        let mut writer = protobuf::Writer {
            table: &self.table,
            out: Reversed::with_capacity(1024),
        };
        writer.message(message, fields(object)?)?;
        Ok(writer.out.into_bytes())
    }

    /// The object of a protobuf message, with `kind` and `apiVersion` set. Unknown fields are
    /// skipped; lengths and nesting are checked.
    pub fn from_protobuf(
        &self,
        api_version: &str,
        kind: &str,
        message: &[u8],
    ) -> Result<Value, SchemaError> {
        let mut object = Map::new();
        object.insert("apiVersion".to_owned(), Value::from(api_version));
        object.insert("kind".to_owned(), Value::from(kind));
        let index = self.message(api_version, kind)?;
        let mut reader = decode::Reader {
            table: &self.table,
            depth: 0,
        };
        reader.message(index, message, &mut object)?;
        Ok(Value::Object(object))
    }

    /// What reading the object back from storage gives: empty lists and maps, unknown fields and
    /// unset optional fields are gone, quantities and times are canonical.
    pub fn stored(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Value, SchemaError> {
        self.from_protobuf(
            api_version,
            kind,
            &self.protobuf(api_version, kind, object)?,
        )
    }

    /// The empty object a bookmark carries: `kind`, `apiVersion` and empty `metadata`; the encoders
    /// add what the apiserver prints for required fields without a value.
    pub fn empty(&self, api_version: &str, kind: &str) -> Result<Value, SchemaError> {
        self.message(api_version, kind)?;
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": {}});
        // Internally these are no pointers: converting the empty object sets them.
        if matches!(
            (api_version, kind),
            ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet")
        ) {
            object["spec"] = json!({"replicas": 0});
        }
        Ok(object)
    }

    fn message(&self, api_version: &str, kind: &str) -> Result<usize, SchemaError> {
        self.table
            .kind(api_version, kind)
            .ok_or_else(|| SchemaError::UnknownKind {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            })
    }
}

fn fields(object: &Value) -> Result<&Map<String, Value>, SchemaError> {
    object
        .as_object()
        .ok_or_else(|| self::json::wrong("an object"))
}

#[cfg(test)]
mod tests;
