//! The resource version a body speaks of, and nothing else of it.

use std::ops::Range;

use super::json::{self, Scanner};
use super::protobuf::{self, Reader};
use super::{DecodeError, Encoding};
use crate::resource_version::ResourceVersion;

/// Number of `resourceVersion` in ListMeta and in ObjectMeta.
const IN_LIST: u32 = 2;
const IN_OBJECT: u32 = 6;

/// `metadata.resourceVersion` of the body of a LIST.
///
/// # Errors
/// See [`DecodeError`].
pub fn list_version(encoding: Encoding, body: &[u8]) -> Result<ResourceVersion, DecodeError> {
    version(encoding, body, IN_LIST)
}

/// `metadata.resourceVersion` of the body of a GET.
///
/// # Errors
/// See [`DecodeError`].
pub fn object_version(encoding: Encoding, body: &[u8]) -> Result<ResourceVersion, DecodeError> {
    version(encoding, body, IN_OBJECT)
}

fn version(encoding: Encoding, body: &[u8], number: u32) -> Result<ResourceVersion, DecodeError> {
    let found = match encoding {
        Encoding::Json => in_json(body)?,
        Encoding::Protobuf => in_protobuf(body, number)?,
    };
    found.ok_or(DecodeError::Field("resourceVersion of a body"))
}

fn in_json(body: &[u8]) -> Result<Option<ResourceVersion>, DecodeError> {
    let mut scanner = Scanner::new(body)?;
    let text = scanner.text();
    let mut found: Option<Range<usize>> = None;
    scanner.object(|scanner, key| {
        if key != "metadata" {
            return scanner.skip().map(drop);
        }
        scanner.object(|scanner, key| {
            let at = scanner.skip()?;
            if key == "resourceVersion" {
                found = Some(at);
            }
            Ok(())
        })
    })?;
    found
        .map(|at| &text[at])
        .filter(|value| value.starts_with('"'))
        .map(|value| super::lift::resource_version(&json::unescape(value)))
        .transpose()
}

fn in_protobuf(body: &[u8], number: u32) -> Result<Option<ResourceVersion>, DecodeError> {
    let mut message = Reader::new(body, protobuf::unwrap(body)?.raw);
    let mut found = None;
    while let Some(field) = message.field()? {
        if field.number != 1 {
            continue;
        }
        let mut metadata = Reader::new(body, field.bytes()?);
        while let Some(field) = metadata.field()? {
            if field.number == number {
                let text = std::str::from_utf8(&body[field.bytes()?]).unwrap_or_default();
                found = Some(super::lift::resource_version(text)?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rv;

    #[test]
    fn a_version_is_found_wherever_metadata_stands_and_nowhere_else() {
        let builtin = r#"{"kind":"L","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"resourceVersion":"5"}}]}"#;
        let custom = r#"{"items":[{"metadata":{"resourceVersion":"5"}}],"metadata":{"continue":"","resourceVersion":"7"}}"#;
        for body in [builtin, custom] {
            let found = list_version(Encoding::Json, body.as_bytes());
            assert_eq!(found, Ok(rv(7)), "{body}");
        }
        for body in [
            "{}",
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"resourceVersion":7}}"#,
        ] {
            assert!(
                object_version(Encoding::Json, body.as_bytes()).is_err(),
                "{body}"
            );
        }
        assert!(list_version(Encoding::Json, b"<html>").is_err());
    }

    #[test]
    fn lists_and_objects_keep_their_version_in_different_fields() {
        // Unknown{raw: {1: {2: "7", 6: "9"}}}, as a list and as an object would read it.
        let body = b"k8s\0\x12\x08\x0a\x06\x12\x017\x32\x019";
        assert_eq!(list_version(Encoding::Protobuf, body), Ok(rv(7)));
        assert_eq!(object_version(Encoding::Protobuf, body), Ok(rv(9)));
        assert!(list_version(Encoding::Protobuf, &body[..body.len() - 1]).is_err());
        assert!(list_version(Encoding::Protobuf, b"k8s\0").is_err());
    }
}
