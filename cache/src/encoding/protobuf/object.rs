//! One protobuf object: `k8s\0`, a `runtime.Unknown` with apiVersion and kind, and in it the
//! object's own message.

use std::borrow::Cow;
use std::ops::Range;

use bytes::BufMut;

use super::super::DecodeError;
use super::super::lift::{self, Captures, Lifted, Patched, ReadValue};
use super::{Reader, bytes_field_len, push_bytes, push_header, walk};
use crate::fields::Format;
use crate::fields::shape::RESOURCE_VERSION;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// What every protobuf body starts with.
const MAGIC: &[u8] = b"k8s\0";

/// `contentEncoding` and `contentType` of `runtime.Unknown`, always empty, always written.
pub(in crate::encoding) const ENVELOPE_TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// The parts of a full encoding.
#[derive(Debug)]
pub(in crate::encoding) struct Unwrapped<'a> {
    pub(in crate::encoding) api_version: &'a [u8],
    pub(in crate::encoding) kind: &'a [u8],
    /// Where the message itself stands.
    pub(in crate::encoding) raw: Range<usize>,
}

/// Takes the envelope off.
pub(in crate::encoding) fn unwrap(full: &[u8]) -> Result<Unwrapped<'_>, DecodeError> {
    if !full.starts_with(MAGIC) {
        return Err(DecodeError::Malformed {
            what: "protobuf magic",
            at: 0,
        });
    }
    let mut parts = Unwrapped {
        api_version: &[],
        kind: &[],
        raw: full.len()..full.len(),
    };
    let mut reader = Reader::new(full, MAGIC.len()..full.len());
    while let Some(field) = reader.field()? {
        match field.number {
            1 => {
                let mut type_meta = Reader::new(full, field.bytes()?);
                while let Some(field) = type_meta.field()? {
                    match field.number {
                        1 => parts.api_version = &full[field.bytes()?],
                        2 => parts.kind = &full[field.bytes()?],
                        _ => {}
                    }
                }
            }
            2 => parts.raw = field.bytes()?,
            // A content encoding or type would mean that the message is not plain protobuf.
            3 | 4 if !field.bytes()?.is_empty() => {
                return Err(DecodeError::Malformed {
                    what: "protobuf envelope",
                    at: field.span.start,
                });
            }
            _ => {}
        }
    }
    Ok(parts)
}

/// Lifts the metadata out of a full object.
pub(in crate::encoding) fn lift<'a>(
    resource: &Resource,
    full: &'a [u8],
) -> Result<Lifted<'a>, DecodeError> {
    let parts = unwrap(full)?;
    check_kind(&parts, &resource.api_version(), &resource.kind)?;
    lift_message(resource, full, parts.raw)
}

/// Lifts the metadata out of the message at `message`; ranges are relative to `full`.
pub(in crate::encoding) fn lift_message<'a>(
    resource: &Resource,
    full: &'a [u8],
    message: Range<usize>,
) -> Result<Lifted<'a>, DecodeError> {
    let shape = resource.fields.wire();
    let mut captures = Captures::new(resource.fields.slots(), shape.len());
    walk(full, message.clone(), shape, &mut captures)?;
    let values = Values {
        full,
        captures: &captures,
    };
    let [name, namespace, uid] = lift::identity(&values)?;
    let at = captures.values[RESOURCE_VERSION]
        .clone()
        .ok_or(DecodeError::Field("metadata.resourceVersion"))?;
    let mut labels = captures
        .labels
        .iter()
        .map(|(key, value)| Ok((text(full, key)?, text(full, value)?)))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    lift::sort_labels(&mut labels);
    Ok(Lifted {
        walked: full,
        moved: 0,
        name,
        namespace,
        uid,
        resource_version: lift::resource_version(&text(full, &at)?)?,
        labels,
        fields: lift::fields(&resource.fields, &values)?,
        resource_version_at: at,
        item: message,
        custom: resource.custom,
    })
}

/// # Errors
/// An envelope around another kind.
pub(in crate::encoding) fn check_kind(
    parts: &Unwrapped<'_>,
    api_version: &str,
    kind: &str,
) -> Result<(), DecodeError> {
    if parts.api_version == api_version.as_bytes() && parts.kind == kind.as_bytes() {
        return Ok(());
    }
    Err(DecodeError::Kind {
        expected: format!("{api_version} {kind}"),
        found: format!(
            "{} {}",
            String::from_utf8_lossy(parts.api_version),
            String::from_utf8_lossy(parts.kind)
        ),
    })
}

/// Length of a full encoding around a message of `raw_len` bytes.
pub(in crate::encoding) const fn envelope_len(
    api_version: &str,
    kind: &str,
    raw_len: usize,
) -> usize {
    let type_meta = bytes_field_len(api_version.len()) + bytes_field_len(kind.len());
    MAGIC.len() + bytes_field_len(type_meta) + bytes_field_len(raw_len) + ENVELOPE_TAIL.len()
}

/// Appends an envelope up to where a message of `raw_len` bytes must follow; after it comes
/// [`ENVELOPE_TAIL`].
pub(in crate::encoding) fn push_envelope(
    out: &mut impl BufMut,
    api_version: &str,
    kind: &str,
    raw_len: usize,
) {
    out.put_slice(MAGIC);
    push_header(
        out,
        1,
        bytes_field_len(api_version.len()) + bytes_field_len(kind.len()),
    );
    push_bytes(out, 1, api_version.as_bytes());
    push_bytes(out, 2, kind.as_bytes());
    push_header(out, 2, raw_len);
}

/// The same object with another resource version, and all enclosing lengths changed to fit.
pub(in crate::encoding) fn replace_resource_version(
    full: &[u8],
    at: Range<usize>,
    resource_version: ResourceVersion,
) -> Patched {
    /// `Unknown.raw`, `metadata`, `resourceVersion`.
    const PATH: [u8; 3] = [2, 1, 6];
    let digits = resource_version.to_string();
    let mut bytes = Vec::with_capacity(full.len() + digits.len() + PATH.len());
    bytes.extend_from_slice(MAGIC);
    let replace = Replace {
        full,
        at: at.start,
        value: digits.as_bytes(),
    };
    replace.rewrite(MAGIC.len()..full.len(), &PATH, &mut bytes);
    // Nothing after the value changed, so it still ends as far from the end.
    let end = bytes.len() - (full.len() - at.end);
    let item = unwrap(&bytes)
        .expect("only lengths and the one value changed")
        .raw;
    bytes.shrink_to_fit();
    Patched {
        resource_version_at: end - digits.len()..end,
        item,
        bytes,
    }
}

/// Replaces the value that stands at `at`.
struct Replace<'a> {
    full: &'a [u8],
    at: usize,
    value: &'a [u8],
}

impl Replace<'_> {
    fn rewrite(&self, message: Range<usize>, path: &[u8], out: &mut Vec<u8>) {
        let (&number, deeper) = path.split_first().expect("the path ends at the value");
        let mut reader = Reader::new(self.full, message);
        while let Some(field) = reader
            .field()
            .expect("the object was read when it was decoded")
        {
            let inside = field.span.contains(&self.at);
            let payload = field
                .bytes()
                .ok()
                .filter(|_| inside && field.number == u32::from(number));
            match payload {
                None => out.extend_from_slice(&self.full[field.span]),
                Some(payload) if deeper.is_empty() => {
                    debug_assert_eq!(
                        payload.start, self.at,
                        "the value stands where it was found"
                    );
                    push_bytes(out, number, self.value);
                }
                Some(payload) => {
                    let mut inner = Vec::with_capacity(payload.len() + self.value.len() + 8);
                    self.rewrite(payload, deeper, &mut inner);
                    push_bytes(out, number, &inner);
                }
            }
        }
    }
}

fn text<'a>(full: &'a [u8], span: &Range<usize>) -> Result<Cow<'a, str>, DecodeError> {
    std::str::from_utf8(&full[span.clone()])
        .map(Cow::Borrowed)
        .map_err(|error| DecodeError::Malformed {
            what: "UTF-8",
            at: span.start + error.valid_up_to(),
        })
}

/// Captured spans of a protobuf message.
struct Values<'a, 'c> {
    full: &'a [u8],
    captures: &'c Captures,
}

impl<'a> ReadValue<'a> for Values<'a, '_> {
    fn read(&self, slot: usize, format: Format) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let span = self.captures.values[slot].as_ref();
        let number = self
            .captures
            .numbers
            .iter()
            .rev()
            .find(|(of, _)| *of == slot);
        let number = number.map(|&(_, number)| number);
        match (format, span, number) {
            (_, None, None) => Ok(None),
            (Format::Text | Format::Any, Some(span), None) => text(self.full, span).map(Some),
            (Format::Bool, None, Some(number)) => Ok(Some(Cow::Borrowed(if number == 0 {
                "false"
            } else {
                "true"
            }))),
            // Negative numbers travel as the two's complement of 64 bits.
            (Format::Decimal, None, Some(number)) => {
                Ok(Some(Cow::Owned(number.cast_signed().to_string())))
            }
            _ => Err(DecodeError::Field(
                "value of a selectable field or metadata",
            )),
        }
    }
}
