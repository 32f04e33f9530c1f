//! What the two decoders hand to [`Object`](crate::object::Object): the values the cache asks for,
//! lifted out of the bytes.
//!
//! Owns the shared middle between a walk over bytes ([`Captures`]) and a finished object
//! ([`Lifted`]). It refuses to know either encoding.

use std::borrow::Cow;
use std::ops::Range;

use super::DecodeError;
use crate::fields::shape::{NAME, NAMESPACE, UID};
use crate::fields::{FieldSet, Format, Source};
use crate::resource_version::ResourceVersion;

/// Labels as text, key and value.
pub(crate) type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Where a walk found the values of a [`Shape`](crate::fields::shape::Shape).
#[derive(Debug, Default)]
pub(super) struct Captures {
    /// By slot.
    pub(super) values: Vec<Option<Range<usize>>>,
    /// Key and value of every label.
    pub(super) labels: Vec<(Range<usize>, Range<usize>)>,
    /// Integers of protobuf, with their slot; the last of a slot counts.
    pub(super) numbers: Vec<(usize, u64)>,
    /// By node of the shape, whether the walk has been there.
    pub(super) visited: Vec<bool>,
}

impl Captures {
    pub(super) fn new(slots: usize, nodes: usize) -> Self {
        Self {
            values: vec![None; slots],
            labels: Vec::new(),
            numbers: Vec::new(),
            visited: vec![false; nodes],
        }
    }
}

/// Everything an object keeps besides its bytes. Ranges are relative to the full single-object
/// encoding.
#[derive(Debug)]
pub(crate) struct Lifted<'a> {
    /// What was walked; the borrowed values stand in it.
    pub(super) walked: &'a [u8],
    /// How far on in the full encoding the bytes of the object stand.
    pub(super) moved: isize,
    pub(crate) name: Cow<'a, str>,
    pub(crate) namespace: Cow<'a, str>,
    pub(crate) uid: Cow<'a, str>,
    pub(crate) resource_version: ResourceVersion,
    /// Sorted by key, keys distinct.
    pub(crate) labels: Labels<'a>,
    /// By index of the field set.
    pub(crate) fields: Vec<Field<'a>>,
    /// The value of `metadata.resourceVersion`; of JSON with its quotes.
    pub(crate) resource_version_at: Range<usize>,
    /// What of the encoding stands in a list; see [`Object::item`](crate::object::Object::item).
    pub(crate) item: Range<usize>,
    /// Whether it is a custom resource.
    pub(crate) custom: bool,
}

impl Lifted<'_> {
    /// Where in the full encoding a lifted value stands, if it does as it is. To be believed only
    /// after a look.
    pub(crate) fn place(&self, value: &str) -> Option<usize> {
        let at = (value.as_ptr() as usize).checked_sub(self.walked.as_ptr() as usize)?;
        let is_inside = at < self.walked.len();
        is_inside.then(|| at.checked_add_signed(self.moved))?
    }

    /// Bytes of all lifted values together.
    pub(crate) fn text_len(&self) -> usize {
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let fields = self.fields.iter().map(|field| match field {
            Field::Name | Field::Namespace => 0,
            Field::Text(text) => text.len(),
        });
        let identity = self.namespace.len() + 1 + self.name.len() + self.uid.len();
        identity + labels.sum::<usize>() + fields.sum::<usize>()
    }

    /// Moves the ranges from an encoding where the object starts at `from` to one where the same
    /// bytes start at `to`.
    pub(super) fn relocate(&mut self, from: usize, to: usize) {
        self.moved += to.cast_signed() - from.cast_signed();
        for range in [&mut self.resource_version_at, &mut self.item] {
            *range = range.start + to - from..range.end + to - from;
        }
    }
}

/// A full encoding with another resource version in it, and the ranges of [`Lifted`] for it.
#[derive(Debug)]
pub(crate) struct Patched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) resource_version_at: Range<usize>,
    pub(crate) item: Range<usize>,
}

/// The value of one selectable field.
#[derive(Debug)]
pub(crate) enum Field<'a> {
    Name,
    Namespace,
    Text(Cow<'a, str>),
}

/// Reads captured values as text: the one thing the encodings do differently.
pub(super) trait ReadValue<'a> {
    /// The value of a slot in this format, or `None` when it is absent or null.
    fn read(&self, slot: usize, format: Format) -> Result<Option<Cow<'a, str>>, DecodeError>;
}

/// Name, namespace and uid, in this order.
pub(super) fn identity<'a>(values: &impl ReadValue<'a>) -> Result<[Cow<'a, str>; 3], DecodeError> {
    let text = |slot| Ok(values.read(slot, Format::Text)?.unwrap_or_default());
    let name: Cow<'a, str> = text(NAME)?;
    if name.is_empty() {
        return Err(DecodeError::Field("metadata.name"));
    }
    Ok([name, text(NAMESPACE)?, text(UID)?])
}

/// Strictly decimal, since nothing else comes out of an apiserver.
pub(super) fn resource_version(text: &str) -> Result<ResourceVersion, DecodeError> {
    ResourceVersion::parse_strict(text)
        .map_err(|_invalid| DecodeError::Field("metadata.resourceVersion"))
}

/// The values of all selectable fields.
pub(super) fn fields<'a>(
    set: &FieldSet,
    values: &impl ReadValue<'a>,
) -> Result<Vec<Field<'a>>, DecodeError> {
    set.sources()
        .iter()
        .map(|source| match source {
            Source::Name => Ok(Field::Name),
            Source::Namespace => Ok(Field::Namespace),
            Source::Slots(slots, format) => first_filled(values, slots, *format).map(Field::Text),
        })
        .collect()
}

fn first_filled<'a>(
    values: &impl ReadValue<'a>,
    slots: &[usize],
    format: Format,
) -> Result<Cow<'a, str>, DecodeError> {
    for &slot in slots {
        match values.read(slot, format)? {
            Some(text) if !text.is_empty() => return Ok(text),
            Some(_) | None => {}
        }
    }
    Ok(Cow::Borrowed(match format {
        Format::Text | Format::Any => "",
        Format::Bool => "false",
        Format::Decimal => "0",
    }))
}

/// Sorts by key; of equal keys the last one received stays, as in a Go map.
pub(super) fn sort_labels(labels: &mut Labels<'_>) {
    labels.sort_by(|(a, _), (b, _)| a.cmp(b));
    labels.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
}
