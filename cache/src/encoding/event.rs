//! Watch events: one frame in, one event out, and the other way round.
//!
//! Owns the envelope of an event: `{"type":…,"object":…}` and a newline in JSON; type and
//! `RawExtension` behind a length in protobuf. A frame is scanned once, envelope and object
//! together.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;

use super::bookmark::BookmarkTemplate;
use super::json::{self, Scanner};
use super::protobuf::{self, Reader, bytes_field_len, push_bytes, push_header};
use super::{DecodeError, Encoding, EventType, StatusError, WatchEvent};
use crate::object::Object;
use crate::resource::Resource;

/// Decodes one frame as [`FrameSplitter`](super::FrameSplitter) cut it.
///
/// # Errors
/// See [`DecodeError`]; the stream cannot be trusted any further.
pub fn decode_event(
    encoding: Encoding,
    resource: &Resource,
    frame: &[u8],
) -> Result<WatchEvent, DecodeError> {
    match encoding {
        Encoding::Json => decode_json(resource, frame),
        Encoding::Protobuf => decode_protobuf(resource, frame),
    }
}

fn decode_json(resource: &Resource, frame: &[u8]) -> Result<WatchEvent, DecodeError> {
    let mut scanner = Scanner::new(frame)?;
    let text = scanner.text();
    let mut kind: Option<Range<usize>> = None;
    let mut object = None;
    scanner.object(|scanner, key| {
        match key {
            "type" => kind = Some(scanner.skip()?),
            "object" => object = Some(json::scan_object(scanner, resource)?),
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    })?;
    scanner.end()?;
    let kind = kind
        .map(|at| &text[at])
        .filter(|kind| kind.starts_with('"'));
    let event_type =
        event_type(json::unescape(kind.ok_or(DecodeError::Field("event type"))?).as_bytes())?;
    let (span, captures) = object.ok_or(DecodeError::Field("event object"))?;
    match event_type {
        EventType::Added | EventType::Modified | EventType::Deleted => {
            let lifted = json::lift_scanned(resource, text, span.clone(), &captures)?;
            let object = Object::new(Encoding::Json, frame[span].into(), &lifted)?;
            Ok(WatchEvent::Object { event_type, object })
        }
        EventType::Bookmark => {
            json::check_kind(resource, text, &captures)?;
            BookmarkTemplate::learn_json(resource, &text[span])
        }
        EventType::Error => status_json(&text[span]).map(WatchEvent::Error),
    }
}

fn decode_protobuf(resource: &Resource, frame: &[u8]) -> Result<WatchEvent, DecodeError> {
    let mut kind: &[u8] = &[];
    let mut full = None;
    let mut reader = Reader::new(frame, 0..frame.len());
    while let Some(field) = reader.field()? {
        match field.number {
            1 => kind = &frame[field.bytes()?],
            2 => {
                let mut extension = Reader::new(frame, field.bytes()?);
                while let Some(field) = extension.field()? {
                    if field.number == 1 {
                        full = Some(&frame[field.bytes()?]);
                    }
                }
            }
            _ => {}
        }
    }
    let event_type = event_type(kind)?;
    let full = full.ok_or(DecodeError::Field("event object"))?;
    match event_type {
        EventType::Added | EventType::Modified | EventType::Deleted => {
            let object = Object::decode(Encoding::Protobuf, resource, full)?;
            Ok(WatchEvent::Object { event_type, object })
        }
        EventType::Bookmark => BookmarkTemplate::learn_protobuf(resource, full),
        EventType::Error => status_protobuf(full).map(WatchEvent::Error),
    }
}

fn event_type(word: &[u8]) -> Result<EventType, DecodeError> {
    match word {
        b"ADDED" => Ok(EventType::Added),
        b"MODIFIED" => Ok(EventType::Modified),
        b"DELETED" => Ok(EventType::Deleted),
        b"BOOKMARK" => Ok(EventType::Bookmark),
        b"ERROR" => Ok(EventType::Error),
        _ => Err(DecodeError::Field("event type")),
    }
}

/// Decodes the body of an error answer: a Status in JSON, or in protobuf with its `k8s\0` envelope.
///
/// # Errors
/// When it is no Status; a server in between may have answered.
pub fn decode_status(body: &[u8]) -> Result<StatusError, DecodeError> {
    if body.starts_with(b"k8s\0") {
        return status_protobuf(body);
    }
    let text = std::str::from_utf8(body).map_err(|_invalid| DecodeError::Field("status"))?;
    status_json(text)
}

fn status_json(object: &str) -> Result<StatusError, DecodeError> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Status {
        code: Option<u16>,
        reason: Option<String>,
        message: Option<String>,
        details: Option<Details>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Details {
        retry_after_seconds: Option<u32>,
    }
    let status: Status = serde_json::from_str(object)
        .map_err(|_invalid| DecodeError::Field("status of an ERROR event"))?;
    let retry_after = status
        .details
        .and_then(|details| details.retry_after_seconds);
    Ok(StatusError {
        code: status.code.unwrap_or_default(),
        reason: status.reason.unwrap_or_default(),
        message: status.message.unwrap_or_default(),
        retry_after: retry_after.filter(|&seconds| seconds > 0),
    })
}

/// Fields of `Status`: 3 message, 4 reason, 5 details (in it 5 retryAfterSeconds), 6 code.
fn status_protobuf(full: &[u8]) -> Result<StatusError, DecodeError> {
    let mut status = StatusError {
        code: 0,
        reason: String::new(),
        message: String::new(),
        retry_after: None,
    };
    let text = |at: Range<usize>| String::from_utf8_lossy(&full[at]).into_owned();
    let mut reader = Reader::new(full, protobuf::unwrap(full)?.raw);
    while let Some(field) = reader.field()? {
        match field.number {
            3 => status.message = text(field.bytes()?),
            4 => status.reason = text(field.bytes()?),
            5 => {
                let mut details = Reader::new(full, field.bytes()?);
                while let Some(field) = details.field()? {
                    if field.number == 5 {
                        let seconds = u32::try_from(field.varint()?).ok();
                        status.retry_after = seconds.filter(|&seconds| seconds > 0);
                    }
                }
            }
            6 => status.code = u16::try_from(field.varint()?).unwrap_or_default(),
            _ => {}
        }
    }
    Ok(status)
}

/// A whole watch frame.
pub fn event_frame(event_type: EventType, object: &Object) -> Bytes {
    frame(object.encoding(), event_type, object.bytes())
}

/// Appends a whole watch frame.
pub fn append_event_frame(event_type: EventType, object: &Object, out: &mut BytesMut) {
    append_frame(object.encoding(), event_type, object.bytes(), out);
}

/// A whole `ERROR` frame around an encoded Status: JSON without newline, or protobuf with its
/// `k8s\0` envelope.
pub fn error_frame(encoding: Encoding, status: &[u8]) -> Bytes {
    frame(encoding, EventType::Error, status)
}

/// A whole frame around a full single-object encoding.
pub(super) fn frame(encoding: Encoding, event_type: EventType, full: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(frame_len(encoding, event_type, full.len()));
    push_frame(encoding, event_type, full, &mut out);
    out.into()
}

/// Appends a whole frame around a full single-object encoding.
pub(super) fn append_frame(
    encoding: Encoding,
    event_type: EventType,
    full: &[u8],
    out: &mut BytesMut,
) {
    out.reserve(frame_len(encoding, event_type, full.len()));
    push_frame(encoding, event_type, full, out);
}

const JSON_START: &[u8] = b"{\"type\":\"";
const JSON_MIDDLE: &[u8] = b"\",\"object\":";
const JSON_END: &[u8] = b"}\n";

/// Bytes of the length in front of a protobuf frame.
const LENGTH: usize = 4;

fn frame_len(encoding: Encoding, event_type: EventType, full: usize) -> usize {
    let word = event_type.as_str().len();
    match encoding {
        Encoding::Json => JSON_START.len() + word + JSON_MIDDLE.len() + full + JSON_END.len(),
        Encoding::Protobuf => {
            LENGTH + bytes_field_len(word) + bytes_field_len(bytes_field_len(full))
        }
    }
}

fn push_frame(encoding: Encoding, event_type: EventType, full: &[u8], out: &mut impl BufMut) {
    let word = event_type.as_str().as_bytes();
    match encoding {
        Encoding::Json => {
            for part in [JSON_START, word, JSON_MIDDLE, full, JSON_END] {
                out.put_slice(part);
            }
        }
        Encoding::Protobuf => {
            let length = frame_len(encoding, event_type, full.len()) - LENGTH;
            out.put_u32(u32::try_from(length).expect("an object is smaller than 4 GiB"));
            push_bytes(out, 1, word);
            push_header(out, 2, bytes_field_len(full.len()));
            push_bytes(out, 1, full);
        }
    }
}
