//! The two encodings, bytes only: cut frames, lift metadata, wrap an event, build a list.
//!
//! Owns everything that depends on how objects are written. Nothing is transcoded: what arrives in
//! one encoding leaves in it, and the bytes of an object are the apiserver's own. It refuses to
//! know schemas beyond metadata and the selectable fields, and to guess: bytes it does not
//! understand are an error, never a panic and never half an answer.
//!
//! ```text
//!  chunks ─► FrameSplitter ─► decode_event ─► WatchEvent       decode_list ◄─ body
//!                                  │                                │
//!                                  └───────────► Object ◄───────────┘
//!                                                  │
//!                                  │
//!                         Form, what is sent of it ─► single object, list, watch frame, bookmark
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::object::Object;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

mod bookmark;
#[cfg(feature = "door")]
#[doc(hidden)]
pub mod door;
mod event;
mod form;
mod frames;
mod heartbeat;
mod json;
pub(crate) mod lift;
mod list;
mod metadata;
mod protobuf;
mod version;

pub use bookmark::BookmarkTemplate;
pub use event::{append_event_frame, decode_event, decode_status, error_frame, event_frame};
pub use form::{Extent, Form, MetaVersion};
pub use frames::{FrameError, FrameSplitter};
pub(crate) use heartbeat::is_heartbeat;
use lift::{Lifted, Patched};
pub use list::{ListMeta, append_list_item, decode_list, list_head, list_item_len, list_tail};
pub use version::{list_version, object_version};

/// How objects travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Encoding {
    /// The bare media type, as in `Accept` and in the `Content-Type` of everything but a protobuf
    /// watch.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The `Content-Type` of a watch stream.
    pub const fn watch_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The object entered the watcher's view.
    Added,
    /// The object changed within the view.
    Modified,
    /// The object left the view.
    Deleted,
    /// The stream is complete up to a resource version.
    Bookmark,
    /// The stream ends with a Status.
    Error,
}

impl EventType {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// Why bytes from the apiserver could not be understood. The cache that received them relists;
/// nothing is guessed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not well-formed JSON or protobuf.
    #[error("malformed {what} at byte {at}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Offset from the start of the input.
        at: usize,
    },
    /// Well-formed, but a value the cache needs is absent or has the wrong type.
    #[error("missing or invalid {0}")]
    Field(&'static str),
    /// An object or list of another kind than the resource's.
    #[error("expected {expected}, found {found:?}")]
    Kind {
        /// apiVersion and kind of the resource.
        expected: String,
        /// What the body said.
        found: String,
    },
}

/// One event of an upstream watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    Object {
        /// Which of the three.
        event_type: EventType,
        /// The object as sent; of a `DELETED` one, at the resource version of the deletion.
        object: Object,
    },
    /// `BOOKMARK`
    Bookmark {
        /// The stream is complete up to here.
        resource_version: ResourceVersion,
        /// Whether it carries `k8s.io/initial-events-end: "true"`.
        initial_events_end: bool,
        /// Its shape, for bookmarks of our own.
        template: BookmarkTemplate,
    },
    /// `ERROR`
    Error(StatusError),
}

/// The Status of an `ERROR` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusError {
    /// HTTP code; 0 when absent.
    pub code: u16,
    /// Machine-readable reason, such as `Expired`.
    pub reason: String,
    /// Human-readable message.
    pub message: String,
    /// `details.retryAfterSeconds`, when above zero.
    pub retry_after: Option<u32>,
}

/// One page of an upstream list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// What the list is valid at.
    pub resource_version: ResourceVersion,
    /// Token of the next page; never empty.
    pub continue_token: Option<String>,
    /// `remainingItemCount`
    pub remaining: Option<i64>,
    /// The items, each as a full single object.
    pub objects: Vec<Object>,
}

/// Lifts the metadata out of a full single-object encoding.
pub(crate) fn lift_object<'a>(
    encoding: Encoding,
    resource: &Resource,
    full: &'a [u8],
) -> Result<Lifted<'a>, DecodeError> {
    match encoding {
        Encoding::Json => json::lift(resource, full),
        Encoding::Protobuf => protobuf::lift(resource, full),
    }
}

/// Replaces the resource version in a full single-object encoding. The ranges are those of
/// [`Lifted`].
pub(crate) fn replace_resource_version(
    encoding: Encoding,
    full: &[u8],
    (at, item): (Range<usize>, Range<usize>),
    resource_version: ResourceVersion,
) -> Patched {
    match encoding {
        Encoding::Json => json::replace_resource_version(full, (at, item), resource_version),
        Encoding::Protobuf => protobuf::replace_resource_version(full, at, resource_version),
    }
}

/// The body of a GET of this object: JSON gains a newline.
pub fn get_body(object: &Object) -> Bytes {
    match object.encoding() {
        Encoding::Json => {
            let mut body = BytesMut::with_capacity(object.bytes().len() + 1);
            body.put_slice(object.bytes());
            body.put_u8(b'\n');
            body.freeze()
        }
        Encoding::Protobuf => Bytes::copy_from_slice(object.bytes()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
