//! One object as received, with the few values the cache asks for lifted out of its bytes.
//!
//! Owns the bytes of the full single-object encoding in an allocation of their own, so that an
//! object never keeps a network buffer alive, and an index: where uid, labels and selectable fields
//! stand. A value is read from the bytes where it stands there as it is; the key, and text that had
//! to be unescaped, stand in the index itself. It is immutable and shared. It refuses to decode
//! anything else, and to change: [`Object::with_resource_version`] makes a new one. Invariant: what
//! the accessors return is what the bytes say.
//!
//! ```text
//!  bytes   {"kind":"Pod",…"uid":"u-1",…"nodeName":"n1",…}
//!                               ▲               ▲
//!  index   │ uid ─────────────┘ │ node ──────┘ │ phase ─┐ │ default/a  Pen"ding
//!            spans, narrow or wide              └─────────────────────┘ text
//! ```
//!
//! Rejected: all values in a block of text (a quarter of the bytes of a small pod again), and all
//! of them read from the bytes (escapes would have to be undone at every comparison).

use std::ops::Range;

use crate::allocation;
use crate::encoding::lift::{Field, Lifted};
use crate::encoding::{self, DecodeError, Encoding};
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

mod index;

use index::{Draft, Index};

/// One immutable object.
#[derive(Clone, Debug)]
pub struct Object {
    bytes: Box<[u8]>,
    /// The uid, then key and value of each label, then the fields.
    index: Index,
    resource_version: ResourceVersion,
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
    /// selectable field or label of an unexpected type, or 2 GiB and more.
    pub fn decode(
        encoding: Encoding,
        resource: &Resource,
        full: &[u8],
    ) -> Result<Self, DecodeError> {
        let lifted = encoding::lift_object(encoding, resource, full)?;
        Self::new(encoding, full.into(), &lifted)
    }

    /// Assembles an object from its bytes and what was lifted out of them.
    pub(crate) fn new(
        encoding: Encoding,
        bytes: Box<[u8]>,
        lifted: &Lifted<'_>,
    ) -> Result<Self, DecodeError> {
        if bytes.len() >= BYTES_MAX {
            return Err(DecodeError::Malformed {
                what: "object of 2 GiB or more",
                at: 0,
            });
        }
        let slash = usize::from(!lifted.namespace.is_empty());
        let namespace = 0..lifted.namespace.len();
        let name = namespace.end + slash..namespace.end + slash + lifted.name.len();
        let parts = 1 + 2 * lifted.labels.len() + lifted.fields.len();
        let mut draft = Draft::new(&bytes, (parts, lifted.text_len()));
        draft.write(&lifted.namespace);
        draft.write(&"/"[..slash]);
        draft.write(&lifted.name);
        draft.push(&lifted.uid, [lifted.place(&lifted.uid)]);
        for (key, value) in &lifted.labels {
            draft.push(key, [lifted.place(key)]);
            draft.push(value, [lifted.place(value)]);
        }
        for field in &lifted.fields {
            match field {
                Field::Name => draft.point(name.clone()),
                Field::Namespace => draft.point(namespace.clone()),
                Field::Text(text) => draft.push(text, [lifted.place(text)]),
            }
        }
        Ok(Self {
            index: draft.finish(),
            resource_version: lifted.resource_version,
            resource_version_at: Span::of(&lifted.resource_version_at),
            item: Span::of(&lifted.item),
            key_len: small(name.end),
            namespace_len: small(namespace.end),
            labels: small(lifted.labels.len()),
            encoding,
            custom: lifted.custom,
            bytes,
        })
    }

    /// `namespace/name`, or `name` for cluster-scoped resources. Storage and list order is the byte
    /// order of this.
    pub fn key(&self) -> &str {
        text(self.key_bytes())
    }

    /// Empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        text(&self.key_bytes()[..self.namespace_len as usize])
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
        (0..self.labels as usize).map(|label| (self.part(1 + 2 * label), self.part(2 + 2 * label)))
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let (mut low, mut high) = (0, self.labels as usize);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.raw(1 + 2 * middle).cmp(key.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(self.part(2 + 2 * middle)),
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
        text(self.field_bytes(index))
    }

    /// [`Self::key`], for comparing.
    pub(crate) fn key_bytes(&self) -> &[u8] {
        &self.index.text()[..self.key_len as usize]
    }

    /// [`Self::field`], for comparing.
    pub(crate) fn field_bytes(&self, index: usize) -> &[u8] {
        self.raw(1 + 2 * self.labels as usize + index)
    }

    /// The full single-object encoding.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the bytes say the resource version; of JSON with its quotes.
    pub(crate) fn resource_version_at(&self) -> Range<usize> {
        self.resource_version_at.range()
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
        // Most values stand as far from the start as before, or from the end.
        let bytes = patched.bytes.into_boxed_slice();
        let parts = self.index.len();
        let values = (0..parts).map(|part| self.raw(part).len());
        let text_len = self.key().len() + values.sum::<usize>();
        let mut draft = Draft::new(&bytes, (parts, text_len));
        draft.write(self.key());
        for part in 0..parts {
            let place = self.index.span(part).start;
            match place.checked_sub(self.bytes.len()) {
                Some(in_text) if in_text < self.key_len as usize => {
                    draft.point(in_text..in_text + self.raw(part).len());
                }
                Some(_) => draft.push(self.part(part), []),
                None => {
                    let from_end = (place + bytes.len()).checked_sub(self.bytes.len());
                    draft.push(self.part(part), [Some(place), from_end]);
                }
            }
        }
        Self {
            index: draft.finish(),
            bytes,
            resource_version,
            resource_version_at: Span::of(&patched.resource_version_at),
            item: Span::of(&patched.item),
            ..*self
        }
    }

    /// Bytes of memory this object takes from the allocator while it is shared: itself with its
    /// reference counts, its bytes and its index.
    pub fn memory(&self) -> usize {
        allocation::shared::<Self>()
            + allocation::size(self.bytes.len())
            + allocation::size(self.index.memory())
    }

    fn part(&self, index: usize) -> &str {
        text(self.raw(index))
    }

    fn raw(&self, index: usize) -> &[u8] {
        self.index.read(&self.bytes, index)
    }
}

impl PartialEq for Object {
    /// The same bytes, and the same values lifted out of them; where those stand does not matter.
    fn eq(&self, other: &Self) -> bool {
        let spans = |object: &Self| (object.resource_version_at, object.item);
        self.bytes == other.bytes
            && (self.encoding, self.custom) == (other.encoding, other.custom)
            && (self.resource_version, spans(self)) == (other.resource_version, spans(other))
            && (self.key(), self.namespace_len) == (other.key(), other.namespace_len)
            && (self.labels, self.index.len()) == (other.labels, other.index.len())
            && (0..self.index.len()).all(|part| self.raw(part) == other.raw(part))
    }
}

impl Eq for Object {}

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

/// Places in the bytes and places in the text behind them must fit a span.
const BYTES_MAX: usize = 1 << 31;

fn small(offset: usize) -> u32 {
    u32::try_from(offset)
        .expect("an object is smaller than 2 GiB, and so is what is lifted out of it")
}

/// What was lifted was text when it was lifted.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only text is lifted")
}

#[cfg(test)]
mod tests;
