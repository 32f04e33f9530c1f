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

use serde_json::Value;

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
pub struct Schema {}

impl Schema {
    /// The one table, parsed at first use.
    pub fn builtin() -> &'static Self {
        todo!()
    }

    /// Whether the kind is in the table.
    pub fn knows(&self, api_version: &str, kind: &str) -> bool {
        todo!("{api_version} {kind}")
    }

    /// The object as the apiserver prints it: compact, struct order, `kind` and `apiVersion` first,
    /// no newline at the end.
    pub fn json(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Vec<u8>, SchemaError> {
        todo!("{api_version} {kind} {object}")
    }

    /// The same without `kind` and `apiVersion`: the form of an item in a typed list.
    pub fn json_item(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Vec<u8>, SchemaError> {
        todo!("{api_version} {kind} {object}")
    }

    /// The object's own protobuf message, without the envelope ([`envelope`] adds it).
    pub fn protobuf(
        &self,
        api_version: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Vec<u8>, SchemaError> {
        todo!("{api_version} {kind} {object}")
    }

    /// The object of a protobuf message, with `kind` and `apiVersion` set. Unknown fields are
    /// skipped; lengths are checked.
    pub fn from_protobuf(
        &self,
        api_version: &str,
        kind: &str,
        message: &[u8],
    ) -> Result<Value, SchemaError> {
        todo!("{api_version} {kind} {message:?}")
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

    /// The empty object a bookmark carries: `kind`, `apiVersion`, empty `metadata` and what the
    /// apiserver prints for required fields without a value.
    pub fn empty(&self, api_version: &str, kind: &str) -> Result<Value, SchemaError> {
        todo!("{api_version} {kind}")
    }
}

/// An opened `k8s\0` envelope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Envelope<'a> {
    /// `v1` or `group/version`; empty when absent.
    pub api_version: &'a str,
    /// The kind; empty when absent.
    pub kind: &'a str,
    /// The message of that kind.
    pub raw: &'a [u8],
}

/// `k8s\0` and the `Unknown` message around an encoded object.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    todo!("{api_version} {kind} {raw:?}")
}

/// Takes the `k8s\0` envelope apart.
pub fn open_envelope(body: &[u8]) -> Result<Envelope<'_>, SchemaError> {
    todo!("{body:?}")
}

/// The metadata of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListMeta {
    /// The list's resource version.
    pub resource_version: String,
    /// The continue token; empty on the last page.
    pub continue_token: String,
    /// How many objects follow this page, where that is known.
    pub remaining: Option<i64>,
}

/// A typed list in JSON (no newline) from items of [`Schema::json_item`]; `kind` is the list's.
pub fn list_json<'a>(
    api_version: &str,
    kind: &str,
    metadata: &ListMeta,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let _ = items;
    todo!("{api_version} {kind} {metadata:?}")
}

/// A list of custom resources in JSON (no newline), sorted keys, from items of [`sorted_json`].
pub fn custom_list_json<'a>(
    api_version: &str,
    kind: &str,
    metadata: &ListMeta,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let _ = items;
    todo!("{api_version} {kind} {metadata:?}")
}

/// A list in protobuf, with its envelope, from items of [`Schema::protobuf`]; `kind` is the list's.
pub fn list_protobuf<'a>(
    api_version: &str,
    kind: &str,
    metadata: &ListMeta,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let _ = items;
    todo!("{api_version} {kind} {metadata:?}")
}

/// A watch frame in JSON: one line with its newline. `object` is a whole object's JSON.
pub fn watch_event_json(event_type: &str, object: &[u8]) -> Vec<u8> {
    todo!("{event_type} {object:?}")
}

/// A watch frame in protobuf: four bytes of length and the event. `object` includes its envelope.
pub fn watch_event_protobuf(event_type: &str, object: &[u8]) -> Vec<u8> {
    todo!("{event_type} {object:?}")
}

/// A value with every map sorted, compact, escaped as Go does: the form of custom resources.
pub fn sorted_json(value: &Value) -> Vec<u8> {
    todo!("{value}")
}

/// Appends a JSON string as Go's encoder writes it: `<`, `>`, `&`, U+2028 and U+2029 escaped.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    todo!("{out:?} {text}")
}
