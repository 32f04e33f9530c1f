//! Lists: a body in, objects out; objects in, the apiserver's bytes out.
//!
//! Owns the three shapes of a list. Built-in JSON lists write metadata before the items, which lack
//! kind and apiVersion. Lists of custom resources have sorted keys, so that metadata follows the
//! items, which are whole. Protobuf lists need the length of all items in front. It refuses to hold
//! a list: items are appended to a buffer of the caller.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::json::{self, Scanner};
use super::lift::Captures;
use super::protobuf::{
    self, ENVELOPE_TAIL, Reader, bytes_field_len, push_bytes, push_header, push_varint, varint_len,
};
use super::{DecodeError, Encoding, ListPage};
use crate::object::Object;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// Decodes the body of a list, giving every item the kind and apiVersion (JSON) or the envelope
/// (protobuf) it has alone.
///
/// # Errors
/// See [`DecodeError`]. A list of a kind not named after the resource's is one of them: custom
/// resources may be given any list kind, which discovery does not tell, so a list of such a
/// resource cannot be rebuilt and has to be forwarded.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a body is used up by decoding it"
)]
pub fn decode_list(
    encoding: Encoding,
    resource: &Resource,
    body: Bytes,
) -> Result<ListPage, DecodeError> {
    match encoding {
        Encoding::Json => decode_json(resource, &body),
        Encoding::Protobuf => decode_protobuf(resource, &body),
    }
}

fn decode_json(resource: &Resource, body: &[u8]) -> Result<ListPage, DecodeError> {
    let mut scanner = Scanner::new(body)?;
    let text = scanner.text();
    let type_meta = json_type_meta(resource);
    let (mut kind, mut api_version) = (None, None);
    let mut page = empty_page();
    let mut listed = false;
    scanner.object(|scanner, key| {
        match key {
            "kind" => kind = Some(scanner.skip()?),
            "apiVersion" => api_version = Some(scanner.skip()?),
            "metadata" => listed = json_meta(scanner, &mut page)?,
            "items" => page.objects = json_items(scanner, resource, &type_meta)?,
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    })?;
    scanner.end()?;
    let string = |at: Option<Range<usize>>| {
        at.map(|at| &text[at])
            .filter(|value| value.starts_with('"'))
            .map(json::unescape)
    };
    let found = [string(api_version), string(kind)].map(Option::unwrap_or_default);
    let expected = [resource.api_version(), resource.list_kind()];
    if found != expected {
        return Err(DecodeError::Kind {
            expected: expected.join(" "),
            found: found.join(" "),
        });
    }
    if listed {
        Ok(page)
    } else {
        Err(DecodeError::Field("resourceVersion of a list"))
    }
}

/// Reads a ListMeta; whether it holds a resource version.
fn json_meta(scanner: &mut Scanner<'_>, page: &mut ListPage) -> Result<bool, DecodeError> {
    let text = scanner.text();
    let mut listed = false;
    let string = |at: Range<usize>| match text.as_bytes()[at.start] {
        b'"' => Ok(json::unescape(&text[at])),
        _ => Err(DecodeError::Field("metadata of a list")),
    };
    scanner.object(|scanner, key| {
        let at = scanner.skip()?;
        match key {
            "resourceVersion" => {
                page.resource_version = super::lift::resource_version(&string(at)?)?;
                listed = true;
            }
            "continue" => {
                page.continue_token =
                    Some(string(at)?.into_owned()).filter(|token| !token.is_empty());
            }
            "remainingItemCount" => page.remaining = text[at].parse().ok(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(listed)
}

fn json_items(
    scanner: &mut Scanner<'_>,
    resource: &Resource,
    type_meta: &str,
) -> Result<Vec<Object>, DecodeError> {
    let mut objects = Vec::new();
    if scanner.token() == Some(b'n') {
        return scanner.skip().map(|_null| objects);
    }
    let text = scanner.text();
    scanner.array(|scanner| {
        let (span, captures) = json::scan_object(scanner, resource)?;
        objects.push(json_item(resource, type_meta, (text, span), &captures)?);
        Ok(())
    })?;
    Ok(objects)
}

fn json_item(
    resource: &Resource,
    type_meta: &str,
    (text, span): (&str, Range<usize>),
    captures: &Captures,
) -> Result<Object, DecodeError> {
    let mut lifted = json::lift_scanned(resource, text, span.clone(), captures)?;
    let item = &text.as_bytes()[span];
    if json::has_type_meta(captures) {
        return Object::new(Encoding::Json, item.into(), &lifted);
    }
    // What follows the opening brace moves behind the kind and apiVersion.
    let mut full = Vec::with_capacity(type_meta.len() + item.len() - 1);
    full.extend_from_slice(type_meta.as_bytes());
    full.extend_from_slice(&item[1..]);
    lifted.relocate(1, type_meta.len());
    if resource.custom {
        lifted.item = 1..full.len();
    }
    Object::new(Encoding::Json, full.into(), &lifted)
}

/// What a single object starts with that an item of a built-in list does not.
fn json_type_meta(resource: &Resource) -> String {
    format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",",
        resource.kind,
        resource.api_version()
    )
}

fn decode_protobuf(resource: &Resource, body: &[u8]) -> Result<ListPage, DecodeError> {
    let parts = protobuf::unwrap(body)?;
    let api_version = resource.api_version();
    protobuf::check_kind(&parts, &api_version, &resource.list_kind())?;
    let mut page = empty_page();
    let mut listed = false;
    let mut reader = Reader::new(body, parts.raw);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => listed = protobuf_meta(body, field.bytes()?, &mut page)?,
            2 => {
                let message = field.bytes()?;
                page.objects
                    .push(protobuf_item(resource, &api_version, body, message)?);
            }
            _ => {}
        }
    }
    if listed {
        Ok(page)
    } else {
        Err(DecodeError::Field("resourceVersion of a list"))
    }
}

/// Reads a ListMeta: 2 resourceVersion, 3 continue, 4 remainingItemCount; whether it holds a
/// resource version.
fn protobuf_meta(
    body: &[u8],
    message: Range<usize>,
    page: &mut ListPage,
) -> Result<bool, DecodeError> {
    let mut listed = false;
    let mut reader = Reader::new(body, message);
    while let Some(field) = reader.field()? {
        match field.number {
            2 => {
                let text = std::str::from_utf8(&body[field.bytes()?]).unwrap_or_default();
                page.resource_version = super::lift::resource_version(text)?;
                listed = true;
            }
            3 => {
                let token = std::str::from_utf8(&body[field.bytes()?])
                    .map_err(|_invalid| DecodeError::Field("continue token of a list"))?;
                page.continue_token = Some(token.to_owned()).filter(|token| !token.is_empty());
            }
            4 => page.remaining = Some(field.varint()?.cast_signed()),
            _ => {}
        }
    }
    Ok(listed)
}

fn protobuf_item(
    resource: &Resource,
    api_version: &str,
    body: &[u8],
    message: Range<usize>,
) -> Result<Object, DecodeError> {
    let mut lifted = protobuf::lift_message(resource, body, message.clone())?;
    let raw = &body[message.clone()];
    let mut full = Vec::with_capacity(protobuf::envelope_len(
        api_version,
        &resource.kind,
        raw.len(),
    ));
    protobuf::push_envelope(&mut full, api_version, &resource.kind, raw.len());
    lifted.relocate(message.start, full.len());
    full.extend_from_slice(raw);
    full.extend_from_slice(ENVELOPE_TAIL);
    Object::new(Encoding::Protobuf, full.into(), &lifted)
}

fn empty_page() -> ListPage {
    ListPage {
        resource_version: ResourceVersion::default(),
        continue_token: None,
        remaining: None,
        objects: Vec::new(),
    }
}

/// The metadata of a list sent to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListMeta<'a> {
    /// What the list is valid at.
    pub resource_version: ResourceVersion,
    /// Token of the next page, if there is one: base64url, so nothing in it needs escaping.
    pub continue_token: Option<&'a str>,
    /// `remainingItemCount`
    pub remaining: Option<i64>,
}

/// What a list body starts with. A list body is the head, every item by [`append_list_item`], and
/// the tail. `items_len` is the sum of [`list_item_len`] over the items; JSON does not need it and
/// ignores it.
pub fn list_head(
    encoding: Encoding,
    resource: &Resource,
    meta: &ListMeta<'_>,
    items_len: usize,
) -> Bytes {
    let api_version = resource.api_version();
    if encoding == Encoding::Json && resource.custom {
        return format!("{{\"apiVersion\":\"{api_version}\",\"items\":[").into();
    }
    plain_head(
        encoding,
        (&api_version, &resource.list_kind()),
        meta,
        items_len,
    )
}

/// The head of a list that Go writes from a struct, of this apiVersion and kind.
pub(super) fn plain_head(
    encoding: Encoding,
    of: (&str, &str),
    meta: &ListMeta<'_>,
    items_len: usize,
) -> Bytes {
    match encoding {
        Encoding::Json => json_head(of, meta).into(),
        Encoding::Protobuf => protobuf_head(of, meta, items_len).into(),
    }
}

/// What a list body ends with.
pub fn list_tail(encoding: Encoding, resource: &Resource, meta: &ListMeta<'_>) -> Bytes {
    match (encoding, resource.custom) {
        (Encoding::Json, true) => {
            let remaining = remaining_json(meta);
            let continue_token = meta.continue_token.unwrap_or_default();
            let (kind, version) = (resource.list_kind(), meta.resource_version);
            format!(
                "],\"kind\":\"{kind}\",\"metadata\":{{\"continue\":\"{continue_token}\"{remaining},\
                 \"resourceVersion\":\"{version}\"}}}}\n"
            )
            .into()
        }
        (Encoding::Json | Encoding::Protobuf, _) => plain_tail(encoding),
    }
}

/// The tail of a list that Go writes from a struct.
pub(super) fn plain_tail(encoding: Encoding) -> Bytes {
    Bytes::from_static(match encoding {
        Encoding::Json => b"]}\n",
        Encoding::Protobuf => ENVELOPE_TAIL,
    })
}

fn json_head((api_version, kind): (&str, &str), meta: &ListMeta<'_>) -> String {
    let version = meta.resource_version;
    let continue_token = match meta.continue_token {
        Some(token) if !token.is_empty() => format!(",\"continue\":\"{token}\""),
        Some(_) | None => String::new(),
    };
    let remaining = remaining_json(meta);
    format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\
         \"resourceVersion\":\"{version}\"{continue_token}{remaining}}},\"items\":["
    )
}

fn remaining_json(meta: &ListMeta<'_>) -> String {
    meta.remaining
        .map(|count| format!(",\"remainingItemCount\":{count}"))
        .unwrap_or_default()
}

fn protobuf_head(
    (api_version, kind): (&str, &str),
    meta: &ListMeta<'_>,
    items_len: usize,
) -> Vec<u8> {
    let version = meta.resource_version.to_string();
    let continue_token = meta.continue_token.unwrap_or_default();
    let mut list_meta = Vec::with_capacity(32 + continue_token.len());
    push_bytes(&mut list_meta, 1, &[]);
    push_bytes(&mut list_meta, 2, version.as_bytes());
    push_bytes(&mut list_meta, 3, continue_token.as_bytes());
    if let Some(remaining) = meta.remaining {
        list_meta.put_u8(4 << 3);
        push_varint(&mut list_meta, remaining.cast_unsigned());
    }
    let mut head = Vec::with_capacity(64 + list_meta.len());
    let raw_len = bytes_field_len(list_meta.len()) + items_len;
    protobuf::push_envelope(&mut head, api_version, kind, raw_len);
    push_bytes(&mut head, 1, &list_meta);
    head
}

/// Bytes [`append_list_item`] appends for this object, the comma between JSON items not counted.
pub fn list_item_len(object: &Object) -> usize {
    let item = object.item().len();
    match object.encoding() {
        Encoding::Json if item == 0 => 1 + json::without_type_meta(object.bytes()).len(),
        Encoding::Json => 1 + item,
        Encoding::Protobuf => 1 + varint_len(item as u64) + item,
    }
}

/// Appends one list item, with a comma before it unless it is the `first` of a JSON list.
pub fn append_list_item(object: &Object, first: bool, out: &mut BytesMut) {
    let item = object.item();
    match object.encoding() {
        Encoding::Json => {
            out.reserve(2 + item.len());
            if !first {
                out.put_u8(b',');
            }
            out.put_u8(b'{');
            if item.is_empty() {
                out.put_slice(json::without_type_meta(object.bytes()).as_bytes());
            } else {
                out.put_slice(item);
            }
        }
        Encoding::Protobuf => {
            out.reserve(1 + varint_len(u64::MAX) + item.len());
            push_header(out, 2, item.len());
            out.put_slice(item);
        }
    }
}
