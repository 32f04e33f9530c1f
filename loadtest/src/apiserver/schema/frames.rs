//! What stands around encoded objects: the `k8s\0` envelope, lists and watch events.
//!
//! Owns byte layouts only; objects go in and come out encoded. Invariant: item bytes of a typed
//! list are the object's own, so nothing here decodes or encodes an object.

use super::SchemaError;
use super::decode::{Fields, Wire};
use super::json::write_json_string;
use super::protobuf::Reversed;

const MAGIC: &[u8; 4] = b"k8s\0";

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
    let mut out = Reversed::with_capacity(raw.len() + api_version.len() + kind.len() + 32);
    out.field(4, b"");
    out.field(3, b"");
    out.field(2, raw);
    let start = out.len();
    out.field(2, kind.as_bytes());
    out.field(1, api_version.as_bytes());
    out.close(1, start);
    out.bytes(MAGIC);
    out.into_bytes()
}

/// Takes the `k8s\0` envelope apart.
pub fn open_envelope(body: &[u8]) -> Result<Envelope<'_>, SchemaError> {
    let message = body
        .strip_prefix(MAGIC)
        .ok_or(SchemaError::Malformed("no k8s envelope"))?;
    let mut envelope = Envelope {
        api_version: "",
        kind: "",
        raw: b"",
    };
    let mut fields = Fields(message);
    while let Some((number, wire)) = fields.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let mut types = Fields(bytes);
                while let Some((number, wire)) = types.next()? {
                    let Wire::Bytes(bytes) = wire else { continue };
                    let text = std::str::from_utf8(bytes);
                    let text = text.map_err(|_| SchemaError::Malformed("type is not UTF-8"))?;
                    match number {
                        1 => envelope.api_version = text,
                        2 => envelope.kind = text,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => envelope.raw = bytes,
            _ => {}
        }
    }
    Ok(envelope)
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

/// A typed list in JSON (no newline) from items of [`super::Schema::json_item`]; `kind` is the
/// list's.
pub fn list_json<'a>(
    api_version: &str,
    kind: &str,
    metadata: &ListMeta,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, "{\"kind\":", kind);
    text(&mut out, ",\"apiVersion\":", api_version);
    text(
        &mut out,
        ",\"metadata\":{\"resourceVersion\":",
        &metadata.resource_version,
    );
    if !metadata.continue_token.is_empty() {
        text(&mut out, ",\"continue\":", &metadata.continue_token);
    }
    remaining(&mut out, metadata);
    out.extend_from_slice(b"},\"items\":[");
    append_items(&mut out, items);
    out.extend_from_slice(b"]}");
    out
}

/// A list of custom resources in JSON (no newline), sorted keys, from items of
/// [`super::sorted_json`].
pub fn custom_list_json<'a>(
    api_version: &str,
    kind: &str,
    metadata: &ListMeta,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, "{\"apiVersion\":", api_version);
    out.extend_from_slice(b",\"items\":[");
    append_items(&mut out, items);
    text(&mut out, "],\"kind\":", kind);
    text(
        &mut out,
        ",\"metadata\":{\"continue\":",
        &metadata.continue_token,
    );
    remaining(&mut out, metadata);
    text(
        &mut out,
        ",\"resourceVersion\":",
        &metadata.resource_version,
    );
    out.extend_from_slice(b"}}");
    out
}

fn text(out: &mut Vec<u8>, before: &str, text: &str) {
    out.extend_from_slice(before.as_bytes());
    write_json_string(out, text);
}

fn remaining(out: &mut Vec<u8>, metadata: &ListMeta) {
    if let Some(remaining) = metadata.remaining {
        out.extend_from_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
    }
}

fn append_items<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
}

/// A list in protobuf, with its envelope, from items of [`super::Schema::protobuf`]; `kind` is the
/// list's.
pub fn list_protobuf<'a>(
    api_version: &str,
    kind: &str,
    metadata: &ListMeta,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut meta = Reversed::default();
    if let Some(remaining) = metadata.remaining {
        meta.integer(4, remaining);
    }
    meta.field(3, metadata.continue_token.as_bytes());
    meta.field(2, metadata.resource_version.as_bytes());
    meta.field(1, b"");
    let mut raw = delimited(1, &meta.into_bytes());
    for item in items {
        append_delimited(&mut raw, 2, item);
    }
    envelope(api_version, kind, &raw)
}

fn delimited(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 8);
    append_delimited(&mut out, number, content);
    out
}

fn append_delimited(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    let mut head = Reversed::default();
    head.varint(content.len() as u64);
    head.key(number, 2);
    out.extend_from_slice(&head.into_bytes());
    out.extend_from_slice(content);
}

/// A watch frame in JSON: one line with its newline. `object` is a whole object's JSON.
pub fn watch_event_json(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + 40);
    text(&mut out, "{\"type\":", event_type);
    out.extend_from_slice(b",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out
}

/// A watch frame in protobuf: four bytes of length and the event. `object` includes its envelope.
pub fn watch_event_protobuf(event_type: &str, object: &[u8]) -> Vec<u8> {
    let extension = delimited(1, object);
    let mut event = delimited(1, event_type.as_bytes());
    append_delimited(&mut event, 2, &extension);
    let length = u32::try_from(event.len()).expect("an event is below 4 GiB");
    [&length.to_be_bytes(), event.as_slice()].concat()
}
