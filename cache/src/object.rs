//! One object as received, with the few values the cache asks for lifted out of its bytes.
//!
//! Owns the bytes of the full single-object encoding in an allocation of their own, so that an
//! object never keeps a network buffer alive, and one block of text with key, uid, labels and
//! selectable fields, unescaped. It is immutable and shared. It refuses to decode anything else,
//! and to change: [`Object::with_resource_version`] makes a new one. Invariant: what the accessors
//! return is what the bytes say.
//!
//! Rejected: spans into the bytes instead of a block of text. JSON escapes would have to be undone
//! at every comparison.

use std::ops::Range;

use bytes::Bytes;

use crate::encoding::lift::{Field, Lifted};
use crate::encoding::{self, DecodeError, Encoding};
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

/// One immutable object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    bytes: Bytes,
    resource_version: ResourceVersion,
    /// Key, uid, labels and fields, one after the other.
    text: Box<str>,
    /// Into `text`: the uid, then key and value of each label, then the fields.
    parts: Box<[Span]>,
    /// Into `bytes`.
    resource_version_at: Span,
    /// Into `bytes`.
    item: Span,
    key_len: u32,
    /// Length of the namespace, which the key starts with if there is one.
    namespace_len: u32,
    labels: u32,
    encoding: Encoding,
    custom: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Object {
    /// Lifts key, versions, labels and selectable fields out of the full single-object encoding,
    /// which is copied into an allocation of its own: a JSON object with nothing around it, or
    /// protobuf with its `k8s\0` envelope.
    ///
    /// # Errors
    /// Malformed bytes, another kind than the resource's, no name or no resource version, a
    /// selectable field or label of an unexpected type, or 4 GiB and more.
    pub fn decode(
        encoding: Encoding,
        resource: &Resource,
        full: &[u8],
    ) -> Result<Self, DecodeError> {
        let lifted = encoding::lift_object(encoding, resource, full)?;
        Self::new(encoding, Bytes::copy_from_slice(full), &lifted)
    }

    /// Assembles an object from its bytes and what was lifted out of them.
    pub(crate) fn new(
        encoding: Encoding,
        bytes: Bytes,
        lifted: &Lifted<'_>,
    ) -> Result<Self, DecodeError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(DecodeError::Malformed {
                what: "object of 4 GiB or more",
                at: 0,
            });
        }
        let mut block = Block::with_capacity(lifted);
        let namespace = block.push(&lifted.namespace);
        if !lifted.namespace.is_empty() {
            block.push("/");
        }
        let name = block.push(&lifted.name);
        let uid = block.push(&lifted.uid);
        block.parts.push(uid);
        for (key, value) in &lifted.labels {
            for text in [key, value] {
                let span = block.push(text);
                block.parts.push(span);
            }
        }
        for field in &lifted.fields {
            let span = match field {
                Field::Name => name,
                Field::Namespace => namespace,
                Field::Text(text) => block.push(text),
            };
            block.parts.push(span);
        }
        Ok(Self {
            bytes,
            resource_version: lifted.resource_version,
            resource_version_at: Span::of(&lifted.resource_version_at),
            item: Span::of(&lifted.item),
            key_len: name.end,
            namespace_len: namespace.end,
            labels: small(lifted.labels.len()),
            encoding,
            custom: lifted.custom,
            text: block.text.into(),
            parts: block.parts.into(),
        })
    }

    /// `namespace/name`, or `name` for cluster-scoped resources. Storage and list order is the byte
    /// order of this.
    pub fn key(&self) -> &str {
        &self.text[..self.key_len as usize]
    }

    /// Empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        &self.text[..self.namespace_len as usize]
    }

    /// `metadata.name`
    pub fn name(&self) -> &str {
        let slash = usize::from(self.namespace_len > 0);
        &self.key()[self.namespace_len as usize + slash..]
    }

    /// `metadata.uid`; empty when the object has none.
    pub fn uid(&self) -> &str {
        self.part(0)
    }

    /// `metadata.resourceVersion`
    pub fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    /// How [`Self::bytes`] are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The labels, sorted by key.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let pairs = self.parts[1..].chunks_exact(2).take(self.labels as usize);
        pairs.map(|pair| (self.text(pair[0]), self.text(pair[1])))
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let keys = &self.parts[1..=2 * self.labels as usize];
        let (mut low, mut high) = (0, self.labels as usize);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.text(keys[2 * middle]).cmp(key) {
                std::cmp::Ordering::Equal => return Some(self.text(keys[2 * middle + 1])),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The value of the selectable field at `index` of the resource's
    /// [`FieldSet`](crate::FieldSet).
    ///
    /// # Panics
    /// If the field set has no such index.
    pub fn field(&self, index: usize) -> &str {
        self.part(1 + 2 * self.labels as usize + index)
    }

    /// The full single-object encoding.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether it is a custom resource, so that its JSON has sorted keys.
    pub(crate) fn is_custom(&self) -> bool {
        self.custom
    }

    /// What of the bytes stands in a list: of protobuf the message without its envelope, of JSON
    /// the members and the closing brace, after the kind and apiVersion if those are not repeated
    /// there. Empty when JSON needs them cut out first.
    pub(crate) fn item(&self) -> &[u8] {
        &self.bytes[self.item.range()]
    }

    /// The same object with only `metadata.resourceVersion` replaced in its bytes, as the apiserver
    /// does for an object that leaves a watcher's view (`cache_watcher.go`, 1.36).
    pub fn with_resource_version(&self, resource_version: ResourceVersion) -> Self {
        let patched = encoding::replace_resource_version(
            self.encoding,
            &self.bytes,
            (self.resource_version_at.range(), self.item.range()),
            resource_version,
        );
        Self {
            bytes: Bytes::from(patched.bytes),
            resource_version,
            resource_version_at: Span::of(&patched.resource_version_at),
            item: Span::of(&patched.item),
            text: self.text.clone(),
            parts: self.parts.clone(),
            ..*self
        }
    }

    /// Bytes of memory this object holds, itself included, the overhead of the allocator not.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.text.len() + size_of_val(&*self.parts)
    }

    fn part(&self, index: usize) -> &str {
        self.text(self.parts[index])
    }

    fn text(&self, span: Span) -> &str {
        &self.text[span.range()]
    }
}

impl Span {
    fn of(range: &Range<usize>) -> Self {
        Self {
            start: small(range.start),
            end: small(range.end),
        }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

fn small(offset: usize) -> u32 {
    u32::try_from(offset)
        .expect("an object is smaller than 4 GiB, and so is what is lifted out of it")
}

/// The block of text while it is written.
struct Block {
    text: String,
    parts: Vec<Span>,
}

impl Block {
    fn with_capacity(lifted: &Lifted<'_>) -> Self {
        let labels = lifted
            .labels
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let fields = lifted.fields.iter().map(|field| match field {
            Field::Name | Field::Namespace => 0,
            Field::Text(text) => text.len(),
        });
        let slash = usize::from(!lifted.namespace.is_empty());
        let identity = lifted.namespace.len() + slash + lifted.name.len() + lifted.uid.len();
        Self {
            text: String::with_capacity(identity + labels.sum::<usize>() + fields.sum::<usize>()),
            parts: Vec::with_capacity(1 + 2 * lifted.labels.len() + lifted.fields.len()),
        }
    }

    fn push(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        Span::of(&(start..self.text.len()))
    }
}

#[cfg(test)]
mod tests;
