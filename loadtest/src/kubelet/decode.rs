//! What a hollow kubelet reads from answers and watch frames, in protobuf.
//!
//! Owns the field numbers of the messages it needs and nothing else of them. Refuses JSON: a
//! kubelet asks for protobuf first, and every resource it watches has it.
//! Invariant: decoding borrows from the input; what is not understood is an error, never a default.

use bytes::{Buf as _, Bytes, BytesMut};

use super::protobuf::{Field, Fields, Malformed, find};

/// Annotation with the send time of a write, microseconds on the load generator's clock.
pub const SENT_ANNOTATION: &str = "watershed.dev/sent";
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Longest accepted frame. Default 64 MiB: above any object; a longer length is malformed.
const FRAME_MAX: usize = 64 << 20;

/// Cuts a protobuf watch stream into events.
#[derive(Debug, Default)]
pub struct FrameSplitter {
    buffer: BytesMut,
}

impl FrameSplitter {
    /// Appends what arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event, without its length.
    ///
    /// # Errors
    /// When a length is out of all proportion, so the stream is not what it claims to be.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_MAX {
            return Err(Malformed);
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let frame = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new(); // an idle watch keeps no buffer
        }
        Ok(Some(frame))
    }

    /// Whether bytes of an unfinished event remain.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// Type of a watch event that carries an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// ADDED.
    Added,
    /// MODIFIED.
    Modified,
    /// DELETED.
    Deleted,
}

/// One watch event.
#[derive(Debug)]
pub enum Event<'a> {
    /// ADDED, MODIFIED or DELETED.
    Object {
        /// What happened.
        change: Change,
        /// The object.
        object: Object<'a>,
    },
    /// BOOKMARK.
    Bookmark {
        /// Its resource version.
        resource_version: u64,
        /// Whether it ends the initial events.
        initial_events_end: bool,
    },
    /// ERROR.
    Error(Status),
}

impl<'a> Event<'a> {
    /// Reads the event in a frame.
    ///
    /// # Errors
    /// When the frame is not a WatchEvent with an enveloped object.
    pub fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        let kind = find(frame, 1)?.ok_or(Malformed)?;
        let raw = find(frame, 2)?.ok_or(Malformed)?;
        let message = unwrap(find(raw, 1)?.ok_or(Malformed)?)?;
        let change = match kind {
            b"ADDED" => Change::Added,
            b"MODIFIED" => Change::Modified,
            b"DELETED" => Change::Deleted,
            b"BOOKMARK" => {
                let metadata = Metadata::of(message)?;
                return Ok(Self::Bookmark {
                    resource_version: metadata.resource_version,
                    initial_events_end: metadata.initial_events_end,
                });
            }
            b"ERROR" => return Ok(Self::Error(Status::decode(message)?)),
            _ => return Err(Malformed),
        };
        let object = Object::decode(message)?;
        Ok(Self::Object { change, object })
    }
}

/// An object: what every kind has, and its bytes without envelope.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The metadata.
    pub metadata: Metadata<'a>,
    /// The message as received; equal in a GET, a list and an event.
    pub message: &'a [u8],
}

impl<'a> Object<'a> {
    /// Reads a message without envelope (a list item).
    ///
    /// # Errors
    /// When the message has no readable metadata.
    pub fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let metadata = Metadata::of(message)?;
        Ok(Self { metadata, message })
    }

    /// The key it is stored under, `namespace/name` or `name`.
    #[must_use]
    pub fn key(&self) -> String {
        match (self.metadata.namespace, self.metadata.name) {
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        }
    }

    /// `spec.nodeName` of a pod.
    ///
    /// # Errors
    /// When the spec is malformed.
    pub fn node_name(&self) -> Result<&'a str, Malformed> {
        self.spec_string(10)
    }

    /// `spec.clusterIP` of a service.
    ///
    /// # Errors
    /// When the spec is malformed.
    pub fn cluster_ip(&self) -> Result<&'a str, Malformed> {
        self.spec_string(3)
    }

    fn spec_string(&self, number: u64) -> Result<&'a str, Malformed> {
        let spec = find(self.message, 2)?.unwrap_or_default();
        let bytes = find(spec, number)?.unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| Malformed)
    }

    /// `status.phase` of a pod.
    ///
    /// # Errors
    /// When the status is malformed.
    pub fn phase(&self) -> Result<&'a str, Malformed> {
        let status = find(self.message, 3)?.unwrap_or_default();
        let bytes = find(status, 1)?.unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| Malformed)
    }

    /// ConfigMaps and secrets that the volumes of a pod need.
    ///
    /// # Errors
    /// When a volume is malformed.
    pub fn volumes(&self) -> Result<Vec<Volume<'a>>, Malformed> {
        let mut found = Vec::new();
        let spec = find(self.message, 2)?.unwrap_or_default();
        for volume in repeated(spec, 1) {
            let source = find(volume?.bytes, 2)?.unwrap_or_default();
            for field in Fields::new(source) {
                let field = field?;
                match field.number {
                    6 => found.extend(name_in(field.bytes)?.map(Volume::Secret)),
                    19 => found.extend(local_name(field.bytes)?.map(Volume::ConfigMap)),
                    26 => projected(field.bytes, &mut found)?,
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// What a volume of a pod is filled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume<'a> {
    /// A ConfigMap of this name.
    ConfigMap(&'a str),
    /// A Secret of this name.
    Secret(&'a str),
}

fn projected<'a>(volume: &'a [u8], found: &mut Vec<Volume<'a>>) -> Result<(), Malformed> {
    for source in repeated(volume, 1) {
        for field in Fields::new(source?.bytes) {
            let field = field?;
            match field.number {
                1 => found.extend(local_name(field.bytes)?.map(Volume::Secret)),
                3 => found.extend(local_name(field.bytes)?.map(Volume::ConfigMap)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The name in a source that starts with a LocalObjectReference.
fn local_name(source: &[u8]) -> Result<Option<&str>, Malformed> {
    name_in(find(source, 1)?.unwrap_or_default())
}

fn name_in(reference: &[u8]) -> Result<Option<&str>, Malformed> {
    let name = find(reference, 1)?.map(std::str::from_utf8).transpose();
    Ok(name.map_err(|_| Malformed)?.filter(|name| !name.is_empty()))
}

/// The fields of ObjectMeta that a kubelet acts on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metadata<'a> {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Name; empty in a bookmark.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
    /// Resource version.
    pub resource_version: u64,
    /// Whether a deletion timestamp is set.
    pub deleting: bool,
    /// The time in [`SENT_ANNOTATION`].
    pub sent: Option<u64>,
    /// Whether the annotation that ends initial events is there.
    pub initial_events_end: bool,
}

impl<'a> Metadata<'a> {
    /// Reads field 1 of an object, where every kind has its ObjectMeta.
    fn of(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut metadata = Self::default();
        for field in Fields::new(find(message, 1)?.ok_or(Malformed)?) {
            let field = field?;
            match field.number {
                1 => metadata.name = field.text()?,
                3 => metadata.namespace = field.text()?,
                5 => metadata.uid = field.text()?,
                6 => metadata.resource_version = field.text()?.parse().map_err(|_| Malformed)?,
                9 => metadata.deleting = true,
                12 => metadata.annotation(field.bytes)?,
                _ => {}
            }
        }
        Ok(metadata)
    }

    fn annotation(&mut self, entry: &'a [u8]) -> Result<(), Malformed> {
        let key = find(entry, 1)?.unwrap_or_default();
        if key == SENT_ANNOTATION.as_bytes() {
            let value = find(entry, 2)?.unwrap_or_default();
            self.sent = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
        }
        self.initial_events_end |= key == INITIAL_EVENTS_END.as_bytes();
        Ok(())
    }
}

/// The parts of a Status that decide what a client does next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// HTTP code.
    pub code: u64,
    /// Machine-readable reason.
    pub reason: String,
    /// Text for people.
    pub message: String,
}

impl Status {
    /// Reads a Status message without envelope.
    ///
    /// # Errors
    /// When it is not protobuf.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut status = Self::default();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                3 => field.text()?.clone_into(&mut status.message),
                4 => field.text()?.clone_into(&mut status.reason),
                6 => status.code = field.varint,
                _ => {}
            }
        }
        Ok(status)
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct List<'a> {
    /// Version of the list.
    pub resource_version: u64,
    /// Where the next page starts; empty on the last.
    pub continue_token: &'a str,
    /// The objects.
    pub items: Vec<Object<'a>>,
}

impl<'a> List<'a> {
    /// Reads a list body with its envelope.
    ///
    /// # Errors
    /// When it is not an enveloped list of objects.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let message = unwrap(body)?;
        let metadata = find(message, 1)?.ok_or(Malformed)?;
        let text = |number| -> Result<&'a str, Malformed> {
            let bytes = find(metadata, number)?.unwrap_or_default();
            std::str::from_utf8(bytes).map_err(|_| Malformed)
        };
        let items = repeated(message, 2).map(|field| Object::decode(field?.bytes));
        Ok(Self {
            resource_version: text(2)?.parse().map_err(|_| Malformed)?,
            continue_token: text(3)?,
            items: items.collect::<Result<_, _>>()?,
        })
    }
}

/// The message inside the `k8s\0` envelope.
///
/// # Errors
/// When the bytes do not start with the envelope.
pub fn unwrap(body: &[u8]) -> Result<&[u8], Malformed> {
    let unknown = body.strip_prefix(b"k8s\0").ok_or(Malformed)?;
    find(unknown, 2)?.ok_or(Malformed)
}

fn repeated(message: &[u8], number: u64) -> impl Iterator<Item = Result<Field<'_>, Malformed>> {
    Fields::new(message).filter(move |field| field.as_ref().map_or(true, |f| f.number == number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    #[test]
    fn a_recorded_bookmark_ends_initial_events() {
        let mut splitter = FrameSplitter::default();
        for byte in hex(
            "00000063 0a08424f4f4b4d41524b 1257 0a55 6b387300 0a0f0a0276311209436f6e6669674d6170
             123a 0a38 0a00 1200 1a00 2200 2a00 3205 3132373436 3800 4200
             6221 0a19 6b38732e696f2f696e697469616c2d6576656e74732d656e64 1204 74727565 1a00 2200",
        ) {
            assert!(splitter.next_frame().unwrap().is_none());
            splitter.push(&[byte]);
        }
        let frame = splitter.next_frame().unwrap().unwrap();
        assert!(matches!(
            Event::decode(&frame),
            Ok(Event::Bookmark {
                resource_version: 12746,
                initial_events_end: true
            })
        ));
        assert!(!splitter.is_partial());
    }

    #[test]
    fn a_recorded_error_event_is_a_status() {
        let frame = hex(
            "0a054552524f52 125b 0a59 6b387300 0a0c0a02763112065374617475 73
             1241 0a06 0a0012001a00 1207 4661696c757265 1a22
             746f6f206f6c64207265736f757263652076657273696f6e3a2035202831303030 29
             2207 45787069726564 309a03 1a00 2200",
        );
        let Ok(Event::Error(status)) = Event::decode(&frame) else {
            panic!("not an error event");
        };
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        assert_eq!(status.message, "too old resource version: 5 (1000)");
    }

    #[test]
    fn an_absurd_frame_length_is_malformed() {
        let mut splitter = FrameSplitter::default();
        splitter.push(&[0x7f, 0, 0, 0]);
        assert_eq!(splitter.next_frame(), Err(Malformed));
    }
}
