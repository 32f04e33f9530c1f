//! One object as received, with the few values the cache asks for lifted out.

use bytes::Bytes;

use crate::encoding::{DecodeError, Encoding};
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// One immutable object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    bytes: Bytes,
    encoding: Encoding,
    resource_version: ResourceVersion,
}

impl Object {
    /// Lifts key, versions, labels and selectable fields out of the full single-object encoding, which is copied into an
    /// allocation of its own: a JSON object without trailing newline, or protobuf with its `k8s\0` envelope.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(
        encoding: Encoding,
        resource: &Resource,
        full: &[u8],
    ) -> Result<Self, DecodeError> {
        let _ = (encoding, resource, full);
        todo!()
    }

    /// `namespace/name`, or `name` for cluster-scoped resources. Storage and list order is the byte order of this.
    pub fn key(&self) -> &str {
        todo!()
    }

    /// Empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        todo!()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        todo!()
    }

    /// `metadata.uid`; empty when the object has none.
    pub fn uid(&self) -> &str {
        todo!()
    }

    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    /// How [`Self::bytes`] are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The labels, in the order received.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::empty()
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let _ = key;
        todo!()
    }

    /// The value of the selectable field at `index` of the resource's [`FieldSet`](crate::fields::FieldSet).
    pub fn field(&self, index: usize) -> &str {
        let _ = index;
        todo!()
    }

    /// The full single-object encoding.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same object with only `metadata.resourceVersion` replaced in its bytes.
    pub fn with_resource_version(&self, resource_version: ResourceVersion) -> Self {
        let _ = resource_version;
        todo!()
    }

    /// Bytes of memory this object holds, itself included.
    pub fn memory(&self) -> usize {
        todo!()
    }
}
