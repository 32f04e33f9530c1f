//! `PartialObjectMetadata`: an object reduced to its metadata.
//!
//! Owns the envelope and where the metadata comes from. A built-in object holds it as one span of
//! its bytes, already as the apiserver would write it again, so it is copied. A custom resource
//! holds it in JSON with sorted keys, and the apiserver writes it anew through its Go struct (as
//! `meta.AsPartialObjectMetadata`, 1.36), which [`typed`] does. It refuses nothing: what is absent
//! or mistyped is left out, as there.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use super::protobuf::{self, ENVELOPE_TAIL, Reader, bytes_field_len, push_bytes, push_header};
use super::{Encoding, MetaVersion, json};
use crate::object::Object;

mod typed;

/// Kind of one object.
pub(super) const KIND: &str = "PartialObjectMetadata";

/// Kind of a list of them.
pub(super) const LIST_KIND: &str = "PartialObjectMetadataList";

/// The full single-object encoding.
pub(super) fn object(object: &Object, encoding: Encoding, version: MetaVersion) -> Vec<u8> {
    let metadata = Metadata::of(object, encoding);
    let metadata = metadata.bytes();
    match encoding {
        Encoding::Json => {
            let head = json_head(version);
            let mut out = Vec::with_capacity(head.len() + metadata.len() + 2);
            push_json(&mut out, head, metadata);
            out
        }
        Encoding::Protobuf => {
            let raw_len = bytes_field_len(metadata.len());
            let api_version = version.api_version();
            let mut out = Vec::with_capacity(protobuf::envelope_len(api_version, KIND, raw_len));
            protobuf::push_envelope(&mut out, api_version, KIND, raw_len);
            push_bytes(&mut out, 1, metadata);
            out.extend_from_slice(ENVELOPE_TAIL);
            out
        }
    }
}

/// See [`Form::list_item_len`](super::Form::list_item_len).
pub(super) fn list_item_len(object: &Object, encoding: Encoding, version: MetaVersion) -> usize {
    let metadata = Metadata::of(object, encoding);
    let metadata = metadata.bytes().len();
    match encoding {
        Encoding::Json => json_head(version).len() + metadata + 1,
        Encoding::Protobuf => bytes_field_len(bytes_field_len(metadata)),
    }
}

/// See [`Form::append_list_item`](super::Form::append_list_item). Items in JSON say what they are,
/// those in protobuf do not.
pub(super) fn append_list_item(
    object: &Object,
    (encoding, version): (Encoding, MetaVersion),
    first: bool,
    out: &mut BytesMut,
) {
    let metadata = Metadata::of(object, encoding);
    let metadata = metadata.bytes();
    match encoding {
        Encoding::Json => {
            if !first {
                out.put_u8(b',');
            }
            push_json(out, json_head(version), metadata);
        }
        Encoding::Protobuf => {
            push_header(out, 2, bytes_field_len(metadata.len()));
            push_bytes(out, 1, metadata);
        }
    }
}

const fn json_head(version: MetaVersion) -> &'static str {
    match version {
        MetaVersion::V1 => {
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#
        }
        MetaVersion::V1Beta1 => {
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1beta1","metadata":"#
        }
    }
}

fn push_json(out: &mut impl BufMut, head: &str, metadata: &[u8]) {
    out.put_slice(head.as_bytes());
    out.put_slice(metadata);
    out.put_u8(b'}');
}

/// The encoded `ObjectMeta` of an object.
enum Metadata<'a> {
    /// As it stands in the object.
    Held(&'a [u8]),
    /// Written anew.
    Written(Vec<u8>),
}

impl<'a> Metadata<'a> {
    fn of(object: &'a Object, encoding: Encoding) -> Self {
        let full = object.bytes();
        match (object.encoding(), encoding) {
            (Encoding::Protobuf, _) => Self::Held(&full[protobuf_span(full)]),
            (Encoding::Json, Encoding::Json) if !object.is_custom() => {
                Self::Held(json::metadata(full).as_bytes())
            }
            (Encoding::Json, Encoding::Json) => Self::Written(typed::json(json::metadata(full))),
            (Encoding::Json, Encoding::Protobuf) => {
                Self::Written(typed::protobuf(json::metadata(full)))
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Held(bytes) => bytes,
            Self::Written(bytes) => bytes,
        }
    }
}

/// Where the `ObjectMeta` of a built-in object stands: field 1 of every kind.
fn protobuf_span(full: &[u8]) -> Range<usize> {
    let decoded = "the object was read when it was decoded";
    let raw = protobuf::unwrap(full).expect(decoded).raw;
    let mut reader = Reader::new(full, raw);
    while let Some(field) = reader.field().expect(decoded) {
        if field.number == 1 {
            return field.bytes().expect(decoded);
        }
    }
    unreachable!("an object without metadata has no name and is refused");
}
