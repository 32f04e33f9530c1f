//! One JSON object: its metadata, its form as a list item, its resource version replaced.

use std::borrow::Cow;
use std::ops::Range;

use super::super::DecodeError;
use super::super::lift::{self, Captures, Labels, Lifted, Patched, ReadValue};
use super::{Scanner, unescape};
use crate::fields::Format;
use crate::fields::shape::{API_VERSION, KIND, RESOURCE_VERSION};
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// Lifts the metadata out of a full object, which must be the whole input.
pub(crate) fn lift<'a>(resource: &Resource, full: &'a [u8]) -> Result<Lifted<'a>, DecodeError> {
    let mut scanner = Scanner::new(full)?;
    let (span, captures) = scan_object(&mut scanner, resource)?;
    scanner.end()?;
    if span != (0..full.len()) {
        return Err(DecodeError::Malformed {
            what: "JSON object",
            at: 0,
        });
    }
    lift_scanned(resource, scanner.text(), span, &captures)
}

/// Walks the object the scanner stands at.
pub(in crate::encoding) fn scan_object(
    scanner: &mut Scanner<'_>,
    resource: &Resource,
) -> Result<(Range<usize>, Captures), DecodeError> {
    let shape = resource.fields.json();
    let mut captures = Captures::new(resource.fields.slots(), shape.len());
    let span = scanner.walk(shape, &mut captures)?;
    Ok((span, captures))
}

/// Turns what a walk over `text` found into the values of the object at `span`.
pub(in crate::encoding) fn lift_scanned<'a>(
    resource: &Resource,
    text: &'a str,
    span: Range<usize>,
    captures: &Captures,
) -> Result<Lifted<'a>, DecodeError> {
    let values = Values { text, captures };
    check_kind(resource, text, captures)?;
    let [name, namespace, uid] = lift::identity(&values)?;
    let at = captures.values[RESOURCE_VERSION]
        .clone()
        .filter(|at| text.as_bytes()[at.start] == b'"')
        .ok_or(DecodeError::Field("metadata.resourceVersion"))?;
    let item = item_of(resource, text, &span, captures);
    Ok(Lifted {
        walked: text.as_bytes(),
        moved: -span.start.cast_signed(),
        name,
        namespace,
        uid,
        resource_version: lift::resource_version(&unescape(&text[at.clone()]))?,
        labels: labels(text, captures)?,
        fields: lift::fields(&resource.fields, &values)?,
        resource_version_at: at.start - span.start..at.end - span.start,
        item,
        custom: resource.custom,
    })
}

/// A kind that is present must be the resource's; list items of built-in kinds have none.
pub(in crate::encoding) fn check_kind(
    resource: &Resource,
    text: &str,
    captures: &Captures,
) -> Result<(), DecodeError> {
    let values = Values { text, captures };
    let kind = values.read(KIND, Format::Text)?;
    let api_version = values.read(API_VERSION, Format::Text)?;
    let same_kind = kind.as_ref().is_none_or(|kind| **kind == *resource.kind);
    if same_kind
        && api_version
            .as_ref()
            .is_none_or(|text| resource.is_api_version(text))
    {
        return Ok(());
    }
    Err(DecodeError::Kind {
        expected: format!("{} {}", resource.api_version(), resource.kind),
        found: format!(
            "{} {}",
            api_version.unwrap_or_default(),
            kind.unwrap_or_default()
        ),
    })
}

fn labels<'a>(text: &'a str, captures: &Captures) -> Result<Labels<'a>, DecodeError> {
    let mut labels = captures
        .labels
        .iter()
        .map(|(key, value)| {
            let value = &text[value.clone()];
            match value.as_bytes()[0] {
                b'"' => Ok((unescape(&text[key.clone()]), unescape(value))),
                b'n' => Ok((unescape(&text[key.clone()]), Cow::Borrowed(""))),
                _ => Err(DecodeError::Field("metadata.labels")),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    lift::sort_labels(&mut labels);
    Ok(labels)
}

/// The part of the object at `span`, relative to it, that follows `{` in a list. Custom resources
/// keep everything; built-in ones lose their kind and apiVersion, which the apiserver writes first.
/// Empty when those stand elsewhere, and have to be cut out.
pub(in crate::encoding) fn item_of(
    resource: &Resource,
    text: &str,
    span: &Range<usize>,
    captures: &Captures,
) -> Range<usize> {
    let end = span.len();
    if resource.custom {
        return 1..end;
    }
    match (&captures.values[KIND], &captures.values[API_VERSION]) {
        (None, None) => 1..end,
        (Some(kind), Some(api_version)) => {
            let first = &text[span.start..kind.start] == "{\"kind\":";
            let second = text.get(kind.end..api_version.start) == Some(",\"apiVersion\":");
            let third = text.as_bytes()[api_version.end] == b',';
            if first && second && third {
                api_version.end + 1 - span.start..end
            } else {
                0..0
            }
        }
        (Some(_), None) | (None, Some(_)) => 0..0,
    }
}

/// Whether the object says what it is, in full or in part.
pub(in crate::encoding) fn has_type_meta(captures: &Captures) -> bool {
    captures.values[KIND].is_some() || captures.values[API_VERSION].is_some()
}

/// The members and closing brace of an object without its kind and apiVersion, for objects that do
/// not start with them.
pub(in crate::encoding) fn without_type_meta(full: &[u8]) -> String {
    let mut scanner = Scanner::new(full).expect("the object was scanned when it was decoded");
    let full = scanner.text();
    let mut members = String::with_capacity(full.len());
    let walked = scanner.object(|scanner, key| {
        let kept = key != "kind" && key != "apiVersion";
        let value = scanner.skip()?;
        if kept {
            if !members.is_empty() {
                members.push(',');
            }
            members.push_str(&serde_json::Value::from(key).to_string());
            members.push(':');
            members.push_str(&full[value]);
        }
        Ok(())
    });
    walked.expect("the object was scanned when it was decoded");
    members.push('}');
    members
}

/// The metadata of an object, where the apiserver writes it: near the start.
pub(in crate::encoding) fn metadata(full: &[u8]) -> &str {
    let decoded = "the object was scanned when it was decoded";
    let mut scanner = Scanner::new(full).expect(decoded);
    let metadata = scanner.member("metadata").expect(decoded);
    let at = metadata.expect("an object without metadata has no name and is refused");
    &scanner.text()[at]
}

/// The same object with another resource version.
pub(in crate::encoding) fn replace_resource_version(
    full: &[u8],
    (at, item): (Range<usize>, Range<usize>),
    resource_version: ResourceVersion,
) -> Patched {
    let digits = resource_version.to_string();
    let after = at.start + digits.len() + 2;
    let mut bytes = Vec::with_capacity(after + full.len() - at.end);
    bytes.extend_from_slice(&full[..at.start]);
    bytes.push(b'"');
    bytes.extend_from_slice(digits.as_bytes());
    bytes.push(b'"');
    bytes.extend_from_slice(&full[at.end..]);
    let item = if item.is_empty() {
        item
    } else {
        item.start..bytes.len()
    };
    Patched {
        bytes,
        resource_version_at: at.start..after,
        item,
    }
}

/// Captured spans of a JSON text.
struct Values<'a, 'c> {
    text: &'a str,
    captures: &'c Captures,
}

impl<'a> ReadValue<'a> for Values<'a, '_> {
    fn read(&self, slot: usize, format: Format) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let Some(span) = self.captures.values[slot].clone() else {
            return Ok(None);
        };
        let value = &self.text[span];
        match (value.as_bytes()[0], format) {
            (b'n', _) => Ok(None),
            (b'"', Format::Text | Format::Any) => Ok(Some(unescape(value))),
            (b't' | b'f', Format::Bool | Format::Any)
            | (b'-' | b'0'..=b'9', Format::Decimal | Format::Any) => Ok(Some(Cow::Borrowed(value))),
            _ => Err(DecodeError::Field(
                "value of a selectable field or metadata",
            )),
        }
    }
}
