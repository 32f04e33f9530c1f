//! How an answer is written: which part of each object, and in which encoding.
//!
//! Owns the choice between an object as received and its `PartialObjectMetadata`, for everything
//! that leaves a cache: a single object, a list, a watch frame, a bookmark. It refuses to know what
//! a client accepts, and Tables, whose columns only the apiserver knows.
//!
//! Whole objects leave in the encoding they came in. Metadata has one schema for every kind, so the
//! metadata of custom resources, which come in JSON only, can leave in protobuf too.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::list::{self, ListMeta};
use super::{BookmarkTemplate, Encoding, EventType, event, metadata};
use crate::object::Object;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// See the module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// How it is encoded. Of whole objects, as they are.
    pub encoding: Encoding,
    /// What is sent of an object.
    pub extent: Extent,
}

/// What is sent of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All of it, as received.
    Whole,
    /// Its metadata, as a `PartialObjectMetadata`.
    Metadata(MetaVersion),
}

/// A version of the group `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `v1`
    V1,
    /// `v1beta1`
    V1Beta1,
}

impl MetaVersion {
    /// `meta.k8s.io/` and the version.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

impl Form {
    /// Objects as they are, in the encoding they came in.
    pub const fn whole(encoding: Encoding) -> Self {
        Self {
            encoding,
            extent: Extent::Whole,
        }
    }

    /// Whether objects of `resource` that are held in `held` can be given in this form.
    pub fn suits(self, resource: &Resource, held: Encoding) -> bool {
        let from_json = resource.custom && held == Encoding::Json;
        self.encoding == held || (from_json && matches!(self.extent, Extent::Metadata(_)))
    }

    /// The body of a GET of this object: JSON gains a newline.
    pub fn get_body(self, object: &Object) -> Bytes {
        match self.extent {
            Extent::Whole => super::get_body(object),
            Extent::Metadata(version) => {
                let mut body = metadata::object(object, self.encoding, version);
                if self.encoding == Encoding::Json {
                    body.push(b'\n');
                }
                body.into()
            }
        }
    }

    /// A whole watch frame.
    pub fn event_frame(self, event_type: EventType, object: &Object) -> Bytes {
        event::frame(self.encoding, event_type, &self.object(object))
    }

    /// Appends a whole watch frame.
    pub fn append_event_frame(self, event_type: EventType, object: &Object, out: &mut BytesMut) {
        event::append_frame(self.encoding, event_type, &self.object(object), out);
    }

    /// A whole `BOOKMARK` frame in the shape of `template`.
    pub fn bookmark_frame(
        self,
        template: &BookmarkTemplate,
        resource_version: ResourceVersion,
        initial_events_end: bool,
    ) -> Bytes {
        match self.extent {
            Extent::Whole => template.frame(resource_version, initial_events_end),
            Extent::Metadata(version) => {
                let bookmark = (resource_version, initial_events_end);
                template.metadata_frame(self.encoding, version, bookmark)
            }
        }
    }

    /// What a list body starts with. A list body is the head, every item by
    /// [`Self::append_list_item`], and the tail. `items_len` is the sum of [`Self::list_item_len`]
    /// over the items; JSON does not need it and ignores it.
    pub fn list_head(self, resource: &Resource, meta: &ListMeta<'_>, items_len: usize) -> Bytes {
        match self.extent {
            Extent::Whole => list::list_head(self.encoding, resource, meta, items_len),
            Extent::Metadata(version) => {
                let of = (version.api_version(), metadata::LIST_KIND);
                list::plain_head(self.encoding, of, meta, items_len)
            }
        }
    }

    /// What a list body ends with.
    pub fn list_tail(self, resource: &Resource, meta: &ListMeta<'_>) -> Bytes {
        match self.extent {
            Extent::Whole => list::list_tail(self.encoding, resource, meta),
            Extent::Metadata(_) => list::plain_tail(self.encoding),
        }
    }

    /// Bytes [`Self::append_list_item`] appends for this object, the comma between JSON items not
    /// counted.
    pub fn list_item_len(self, object: &Object) -> usize {
        match self.extent {
            Extent::Whole => list::list_item_len(object),
            Extent::Metadata(version) => metadata::list_item_len(object, self.encoding, version),
        }
    }

    /// Appends one list item, with a comma before it unless it is the `first` of a JSON list.
    pub fn append_list_item(self, object: &Object, first: bool, out: &mut BytesMut) {
        match self.extent {
            Extent::Whole => list::append_list_item(object, first, out),
            Extent::Metadata(version) => {
                metadata::append_list_item(object, (self.encoding, version), first, out);
            }
        }
    }

    /// The full single-object encoding.
    fn object(self, object: &Object) -> Cow<'_, [u8]> {
        match self.extent {
            Extent::Whole => Cow::Borrowed(object.bytes()),
            Extent::Metadata(version) => {
                Cow::Owned(metadata::object(object, self.encoding, version))
            }
        }
    }
}
