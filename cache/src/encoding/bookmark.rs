//! Bookmarks of our own, in the shape of the apiserver's.

use bytes::Bytes;

use super::Encoding;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// The shape of a resource's bookmarks: everything but the resource version and the initial-events-end annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookmarkTemplate {}

impl BookmarkTemplate {
    /// Kind and metadata only; used until the apiserver has sent a bookmark to learn from.
    pub fn empty(encoding: Encoding, resource: &Resource) -> Self {
        let _ = (encoding, resource);
        todo!()
    }

    /// A whole `BOOKMARK` frame.
    pub fn frame(&self, resource_version: ResourceVersion, initial_events_end: bool) -> Bytes {
        let _ = (resource_version, initial_events_end);
        todo!()
    }
}
