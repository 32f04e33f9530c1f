//! Bookmarks of our own, in the shape of the apiserver's.
//!
//! Owns the template: a bookmark is an empty object of the resource's kind, and the zero values an
//! encoder writes for it differ by kind, encoding and version of the apiserver. So the shape is
//! learnt from the first bookmark that comes, and only resource version and annotation are put in
//! (as `cacher.go`, 1.36, fills a new object). Until then a bookmark is kind and metadata, all that
//! clients read. It refuses to carry any other annotation on: those belong to one bookmark only.

use std::fmt::Write as _;

use bytes::Bytes;

use super::event::frame;
use super::json::{self, Scanner};
use super::protobuf::{self, ENVELOPE_TAIL, Reader, bytes_field_len, push_bytes, push_header};
use super::{DecodeError, Encoding, EventType, MetaVersion, WatchEvent, lift, metadata};
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// The annotation that ends the initial events of a streaming list; its value is `true`.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// The annotations of such a bookmark, as a member of JSON metadata.
const ANNOTATIONS_JSON: &str = "\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}";

/// The shape of a resource's bookmarks: everything but the resource version and the
/// initial-events-end annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookmarkTemplate {
    shape: Shape,
    /// Whether it writes the time it has not, as apiservers before 1.34 do in JSON.
    has_null_time: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Json {
        plain: Around,
        initial_events_end: Around,
    },
    Protobuf(Message),
}

/// A JSON object, cut where the digits of its resource version go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Around {
    before: String,
    after: String,
}

/// A protobuf object, cut where resource version and annotations go. Its fields are kept encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    api_version: String,
    kind: String,
    /// Of ObjectMeta, below 6 resourceVersion.
    before: Vec<u8>,
    /// Of ObjectMeta, below 12 annotations.
    between: Vec<u8>,
    /// Of ObjectMeta, the rest.
    after: Vec<u8>,
    /// Of the object, after the metadata.
    rest: Vec<u8>,
}

impl BookmarkTemplate {
    /// Kind and metadata only; used until the apiserver has sent a bookmark to learn from.
    pub fn empty(encoding: Encoding, resource: &Resource) -> Self {
        let shape = match encoding {
            Encoding::Json => {
                let (kind, api_version) = (&resource.kind, resource.api_version());
                let head = if resource.custom {
                    format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",\"metadata\":")
                } else {
                    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":")
                };
                let members = [Member::ResourceVersion];
                Shape::json((&head, "}"), resource.custom, &members)
            }
            Encoding::Protobuf => {
                Shape::Protobuf(Message::empty(&resource.api_version(), &resource.kind))
            }
        };
        Self {
            shape,
            has_null_time: false,
        }
    }

    /// A whole `BOOKMARK` frame.
    pub fn frame(&self, resource_version: ResourceVersion, initial_events_end: bool) -> Bytes {
        match &self.shape {
            Shape::Json {
                plain,
                initial_events_end: initial,
            } => {
                let Around { before, after } = if initial_events_end { initial } else { plain };
                let object = format!("{before}{resource_version}{after}");
                frame(Encoding::Json, EventType::Bookmark, object.as_bytes())
            }
            Shape::Protobuf(message) => {
                let object = message.object(resource_version, initial_events_end);
                frame(Encoding::Protobuf, EventType::Bookmark, &object)
            }
        }
    }

    /// A whole `BOOKMARK` frame around a `PartialObjectMetadata`, at this version and with or
    /// without the annotation. Its own members are the same for every kind.
    pub(super) fn metadata_frame(
        &self,
        encoding: Encoding,
        version: MetaVersion,
        (resource_version, initial_events_end): (ResourceVersion, bool),
    ) -> Bytes {
        let api_version = version.api_version();
        match encoding {
            Encoding::Json => {
                let time = if self.has_null_time {
                    ",\"creationTimestamp\":null"
                } else {
                    ""
                };
                let annotations = if initial_events_end {
                    format!(",{ANNOTATIONS_JSON}")
                } else {
                    String::new()
                };
                let kind = metadata::KIND;
                let object = format!(
                    "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":\
                     {{\"resourceVersion\":\"{resource_version}\"{time}{annotations}}}}}"
                );
                frame(encoding, EventType::Bookmark, object.as_bytes())
            }
            Encoding::Protobuf => {
                let message = Message::empty(api_version, metadata::KIND);
                let object = message.object(resource_version, initial_events_end);
                frame(encoding, EventType::Bookmark, &object)
            }
        }
    }

    /// Reads the object of a JSON bookmark.
    pub(super) fn learn_json(resource: &Resource, object: &str) -> Result<WatchEvent, DecodeError> {
        let mut scanner = Scanner::new(object.as_bytes())?;
        let mut metadata = None;
        scanner.object(|scanner, key| {
            let value = scanner.skip()?;
            if key == "metadata" {
                metadata = Some(value);
            }
            Ok(())
        })?;
        let metadata = metadata.ok_or(DecodeError::Field("metadata of a bookmark"))?;
        let around = (&object[..metadata.start], &object[metadata.end..]);
        let (members, resource_version, initial_events_end) = metadata_json(&object[metadata])?;
        let shape = Shape::json(around, resource.custom, &members);
        let has_null_time = members.iter().any(
            |member| matches!(member, Member::Other(key, "null") if key == "creationTimestamp"),
        );
        let template = Self {
            shape,
            has_null_time,
        };
        Ok(WatchEvent::Bookmark {
            resource_version,
            initial_events_end,
            template,
        })
    }

    /// Reads the object of a protobuf bookmark.
    pub(super) fn learn_protobuf(
        resource: &Resource,
        full: &[u8],
    ) -> Result<WatchEvent, DecodeError> {
        let parts = protobuf::unwrap(full)?;
        protobuf::check_kind(&parts, &resource.api_version(), &resource.kind)?;
        let mut message = Message {
            api_version: resource.api_version(),
            kind: resource.kind.to_string(),
            before: Vec::new(),
            between: Vec::new(),
            after: Vec::new(),
            rest: Vec::new(),
        };
        let mut seen = None;
        let mut reader = Reader::new(full, parts.raw);
        while let Some(field) = reader.field()? {
            if field.number == 1 {
                seen = message.learn_metadata(full, Reader::new(full, field.bytes()?))?;
            } else {
                message.rest.extend_from_slice(&full[field.span]);
            }
        }
        let (resource_version, initial_events_end) =
            seen.ok_or(DecodeError::Field("metadata.resourceVersion"))?;
        let template = Self {
            shape: Shape::Protobuf(message),
            has_null_time: false,
        };
        Ok(WatchEvent::Bookmark {
            resource_version,
            initial_events_end,
            template,
        })
    }
}

/// A member of JSON metadata.
#[derive(Debug)]
enum Member<'a> {
    ResourceVersion,
    Annotations,
    /// Any other, its key unescaped, its value as received.
    Other(String, &'a str),
}

/// The members of a bookmark's metadata, its resource version, and whether it ends the initial
/// events.
fn metadata_json(metadata: &str) -> Result<(Vec<Member<'_>>, ResourceVersion, bool), DecodeError> {
    let mut members = Vec::new();
    let mut resource_version = None;
    let mut initial_events_end = false;
    let mut scanner = Scanner::new(metadata.as_bytes())?;
    scanner.object(|scanner, key| {
        match key {
            "annotations" if scanner.token() == Some(b'{') => {
                members.push(Member::Annotations);
                scanner.object(|scanner, key| {
                    let value = scanner.skip()?;
                    initial_events_end |=
                        key == INITIAL_EVENTS_END && &metadata[value] == "\"true\"";
                    Ok(())
                })?;
            }
            "resourceVersion" if scanner.token() == Some(b'"') => {
                members.push(Member::ResourceVersion);
                let value = json::unescape(&metadata[scanner.skip()?]);
                resource_version = Some(lift::resource_version(&value)?);
            }
            _ => members.push(Member::Other(key.to_owned(), &metadata[scanner.skip()?])),
        }
        Ok(())
    })?;
    let resource_version =
        resource_version.ok_or(DecodeError::Field("metadata.resourceVersion"))?;
    Ok((members, resource_version, initial_events_end))
}

impl Shape {
    /// Cuts an object at its resource version, once with and once without annotations.
    fn json((head, tail): (&str, &str), custom: bool, members: &[Member<'_>]) -> Self {
        let render = |annotated: bool| {
            let mut around = Around {
                before: head.to_owned(),
                after: String::new(),
            };
            let mut at = '{';
            let mut digits_follow = true;
            for member in ordered(members, annotated, custom) {
                let out = if digits_follow {
                    &mut around.before
                } else {
                    &mut around.after
                };
                out.push(at);
                at = ',';
                match member {
                    Member::ResourceVersion => {
                        out.push_str("\"resourceVersion\":\"");
                        around.after.push('"');
                        digits_follow = false;
                    }
                    Member::Annotations => out.push_str(ANNOTATIONS_JSON),
                    Member::Other(key, value) => {
                        let key = serde_json::Value::from(key.as_str());
                        write!(out, "{key}:{value}").expect("writing to a String succeeds");
                    }
                }
            }
            around.after.push('}');
            around.after.push_str(tail);
            around
        };
        Self::Json {
            plain: render(false),
            initial_events_end: render(true),
        }
    }
}

/// The members in the order to write them. Annotations that were not there before go where the
/// apiserver would write them: sorted in for custom resources, last for built-in ones.
fn ordered<'m>(members: &'m [Member<'m>], annotated: bool, custom: bool) -> Vec<&'m Member<'m>> {
    let mut ordered: Vec<&Member<'_>> = members
        .iter()
        .filter(|member| annotated || !matches!(member, Member::Annotations))
        .collect();
    if annotated
        && !ordered
            .iter()
            .any(|member| matches!(member, Member::Annotations))
    {
        let later = |member: &&Member<'_>| match member {
            Member::ResourceVersion => true,
            Member::Annotations => false,
            Member::Other(key, _) => key.as_str() > "annotations",
        };
        let sorted = ordered.iter().position(later).filter(|_| custom);
        ordered.insert(sorted.unwrap_or(ordered.len()), &Member::Annotations);
    }
    ordered
}

impl Message {
    /// Kind and zero metadata only.
    fn empty(api_version: &str, kind: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            // 1 name, 2 generateName, 3 namespace, 4 selfLink, 5 uid
            before: vec![0x0a, 0, 0x12, 0, 0x1a, 0, 0x22, 0, 0x2a, 0],
            // 7 generation, 8 creationTimestamp
            between: vec![0x38, 0, 0x42, 0],
            after: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Takes the fields of ObjectMeta apart. Returns resource version, if any, and whether the
    /// initial events end.
    fn learn_metadata(
        &mut self,
        full: &[u8],
        mut reader: Reader<'_>,
    ) -> Result<Option<(ResourceVersion, bool)>, DecodeError> {
        let mut resource_version = None;
        let mut initial_events_end = false;
        while let Some(field) = reader.field()? {
            let encoded = &full[field.span.clone()];
            match field.number {
                6 => {
                    let text = std::str::from_utf8(&full[field.bytes()?]).unwrap_or_default();
                    resource_version = Some(lift::resource_version(text)?);
                }
                12 => {
                    let (key, value) = protobuf::entry(full, field.bytes()?)?;
                    initial_events_end |=
                        &full[key] == INITIAL_EVENTS_END.as_bytes() && &full[value] == b"true";
                }
                0..6 => self.before.extend_from_slice(encoded),
                7..12 => self.between.extend_from_slice(encoded),
                13.. => self.after.extend_from_slice(encoded),
            }
        }
        Ok(resource_version.map(|resource_version| (resource_version, initial_events_end)))
    }

    /// The full encoding of one bookmark's object.
    fn object(&self, resource_version: ResourceVersion, initial_events_end: bool) -> Vec<u8> {
        let mut metadata = self.before.clone();
        push_bytes(&mut metadata, 6, resource_version.to_string().as_bytes());
        metadata.extend_from_slice(&self.between);
        if initial_events_end {
            let (key, value) = (INITIAL_EVENTS_END.as_bytes(), b"true");
            push_header(
                &mut metadata,
                12,
                bytes_field_len(key.len()) + bytes_field_len(value.len()),
            );
            push_bytes(&mut metadata, 1, key);
            push_bytes(&mut metadata, 2, value);
        }
        metadata.extend_from_slice(&self.after);
        let raw_len = bytes_field_len(metadata.len()) + self.rest.len();
        let mut full = Vec::with_capacity(protobuf::envelope_len(
            &self.api_version,
            &self.kind,
            raw_len,
        ));
        protobuf::push_envelope(&mut full, &self.api_version, &self.kind, raw_len);
        push_bytes(&mut full, 1, &metadata);
        full.extend_from_slice(&self.rest);
        full.extend_from_slice(ENVELOPE_TAIL);
        full
    }
}

#[cfg(test)]
mod tests;
