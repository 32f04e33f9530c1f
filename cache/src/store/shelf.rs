//! Objects in one order, with copies in constant time.
//!
//! Owns the order: by key, or by the value of one field and then by key. Objects stand in chunks
//! of up to [`CHUNK`]; the chunks stand in one list. Both are shared with every copy and copied when
//! they change while a copy lives, so that a change costs a search when nobody holds a copy and one
//! chunk more when somebody does. The invariant: every object of a chunk is at or above the bound
//! of its chunk and below that of the next; the first chunk has no lower bound; none is empty.
//!
//! ```text
//!  chunks   │ bound a/a │ bound a/m │ bound b/c │
//!                 ▼           ▼           ▼
//!            a/a … a/k   a/m … b/a   b/c … z/z      shared objects, in order
//! ```
//!
//! Beside the objects of a chunk stand their tags, short hashes of their keys: to find an object
//! among a hundred takes a look at one or two, where a search would visit seven, each of them
//! somewhere else in memory. An update of one object among very many costs mostly such visits.
//!
//! Rejected: a persistent tree of small nodes. It keeps a copy of some objects' pointers as
//! signposts, so that a tenth of all replaced objects stay in memory, and copies four nodes where
//! one chunk is enough.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::object::Object;

/// Objects in a chunk, at most. A copy of a chunk counts a reference for each of them.
const CHUNK: usize = 128;

/// What a place in an order costs besides the object, in bytes: a slot of a chunk and a tag, which
/// are two thirds full on the average, its share of the chunk's own parts, and half of what the
/// allocator notes down of an object. As measured by `tests/memory.rs`.
pub(super) const PLACE: usize = 30;

/// See the module text.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    order: Order,
    chunks: Arc<Vec<Chunk>>,
    len: usize,
}

/// What objects are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Key,
    /// The value of the field at this index, then the key.
    Field(usize),
}

/// A place in an order: the field's value, empty in the order of keys, and the key.
pub(super) type Place<'a> = (&'a [u8], &'a [u8]);

/// A [`Place`] of its own.
#[derive(Clone, Debug)]
struct Bound {
    /// The value, and the key right behind it.
    text: Arc<[u8]>,
    value_len: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    bound: Bound,
    content: Arc<Content>,
}

/// Objects in order. By position, what stands in one vector belongs to what stands in the other.
#[derive(Clone, Debug)]
struct Content {
    objects: Vec<Arc<Object>>,
    tags: Vec<Tag>,
}

/// A short hash of a key.
type Tag = u32;

impl Shelf {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            chunks: Arc::default(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn find(&self, place: Place<'_>) -> Option<&Arc<Object>> {
        let content = &self.chunks.get(self.chunk_of(place))?.content;
        let at = content.find(self.order, place)?;
        Some(&content.objects[at])
    }

    /// Puts an object in its place and returns the one that stood there.
    pub(super) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let order = self.order;
        let place = order.place(&object);
        let which = self.chunk_of(place);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(which) else {
            chunks.push(Chunk::of(order, Content::of(object)));
            self.len += 1;
            return None;
        };
        if let Some(at) = chunk.content.find(order, place) {
            let slot = &mut Arc::make_mut(&mut chunk.content).objects[at];
            return Some(std::mem::replace(slot, object));
        }
        let (Ok(at) | Err(at)) = order.search(&chunk.content.objects, place);
        self.len += 1;
        if chunk.content.objects.len() < CHUNK {
            Arc::make_mut(&mut chunk.content).insert(at, object);
        } else if at == CHUNK {
            // What comes in order, as a list does, fills every chunk.
            chunks.insert(which + 1, Chunk::of(order, Content::of(object)));
        } else {
            let content = Arc::make_mut(&mut chunk.content);
            let mut upper = content.split_off(CHUNK / 2);
            match at.checked_sub(CHUNK / 2) {
                Some(at) if at > 0 => upper.insert(at, object),
                Some(_) | None => content.insert(at, object),
            }
            chunks.insert(which + 1, Chunk::of(order, upper));
        }
        None
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, place: Place<'_>) -> Option<Arc<Object>> {
        let which = self.chunk_of(place);
        let at = self.chunks.get(which)?.content.find(self.order, place)?;
        self.len -= 1;
        let chunks = Arc::make_mut(&mut self.chunks);
        let content = Arc::make_mut(&mut chunks[which].content);
        let removed = content.remove(at);
        let left = content.objects.len();
        let next = chunks.get(which + 1);
        let next = next.map(|next| next.content.objects.len());
        if left == 0 {
            chunks.remove(which);
        } else if next.is_some_and(|next| left + next <= CHUNK / 2) {
            let next = chunks.remove(which + 1).content;
            let content = Arc::make_mut(&mut chunks[which].content);
            content.objects.extend(next.objects.iter().cloned());
            content.tags.extend(&next.tags);
        }
        Some(removed)
    }

    /// The objects at and above a place, in order.
    pub(super) fn walk(&self, start: Place<'_>) -> Walk<'_> {
        let which = self.chunk_of(start);
        let Some(chunk) = self.chunks.get(which) else {
            return Walk::default();
        };
        let (Ok(at) | Err(at)) = self.order.search(&chunk.content.objects, start);
        Walk {
            chunk: &chunk.content.objects[at..],
            rest: &self.chunks[which + 1..],
        }
    }

    /// The chunk a place belongs into: the last whose bound is not above it. The first takes all
    /// that is below the others.
    fn chunk_of(&self, place: Place<'_>) -> usize {
        let others = self.chunks.get(1..).unwrap_or_default();
        others.partition_point(|chunk| chunk.bound.place() <= place)
    }
}

impl Order {
    /// Where an object stands in this order.
    pub(super) fn place(self, object: &Object) -> Place<'_> {
        match self {
            Self::Key => (&[], object.key_bytes()),
            Self::Field(field) => (object.field_bytes(field), object.key_bytes()),
        }
    }

    fn search(self, objects: &[Arc<Object>], wanted: Place<'_>) -> Result<usize, usize> {
        objects.binary_search_by(|object| match self {
            Self::Key => object.key_bytes().cmp(wanted.1),
            Self::Field(field) => match object.field_bytes(field).cmp(wanted.0) {
                Ordering::Equal => object.key_bytes().cmp(wanted.1),
                unequal @ (Ordering::Less | Ordering::Greater) => unequal,
            },
        })
    }
}

impl Bound {
    fn place(&self) -> Place<'_> {
        self.text.split_at(self.value_len)
    }
}

impl Chunk {
    /// A chunk of some objects; the first is its bound.
    fn of(order: Order, content: Content) -> Self {
        let first = content.objects.first().expect("no chunk is empty");
        let (value, key) = order.place(first);
        let bound = Bound {
            text: [value, key].concat().into(),
            value_len: value.len(),
        };
        Self {
            bound,
            content: Arc::new(content),
        }
    }
}

impl Content {
    fn of(object: Arc<Object>) -> Self {
        Self {
            tags: vec![tag(object.key_bytes())],
            objects: vec![object],
        }
    }

    /// Where the object of this place is.
    fn find(&self, order: Order, place: Place<'_>) -> Option<usize> {
        let wanted = tag(place.1);
        let rows = self.tags.chunks(ROW).enumerate();
        // Looked through row by row, which takes no branch for each.
        let rows = rows.filter(|(_, row)| row.iter().fold(false, |is, tag| is | (*tag == wanted)));
        let mut tagged = rows.flat_map(|(row, tags)| {
            let tags = tags.iter().enumerate();
            let tagged = tags.filter(|(_, tag)| **tag == wanted);
            tagged.map(move |(at, _)| row * ROW + at)
        });
        tagged.find(|&at| order.place(&self.objects[at]) == place)
    }

    fn insert(&mut self, at: usize, object: Arc<Object>) {
        self.tags.insert(at, tag(object.key_bytes()));
        self.objects.insert(at, object);
    }

    fn remove(&mut self, at: usize) -> Arc<Object> {
        self.tags.remove(at);
        self.objects.remove(at)
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            objects: self.objects.split_off(at),
            tags: self.tags.split_off(at),
        }
    }
}

/// Tags that are compared at once.
const ROW: usize = 16;

/// Of keys that are as alike as those of one chunk, few have the same. Who makes keys whose tags
/// are all equal has them compared as many times as a chunk has objects.
fn tag(key: &[u8]) -> Tag {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 over the golden ratio
    let (words, rest) = key.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain(std::iter::once(&last));
    let hash = words.fold(key.len() as u64, |hash, word| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR)
    });
    (hash >> 32) as Tag
}

/// See [`Shelf::walk`].
#[derive(Debug, Default)]
pub(super) struct Walk<'a> {
    chunk: &'a [Arc<Object>],
    rest: &'a [Chunk],
}

impl<'a> Iterator for Walk<'a> {
    type Item = &'a Arc<Object>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.chunk.is_empty() {
            let (next, rest) = self.rest.split_first()?;
            (self.chunk, self.rest) = (&next.content.objects, rest);
        }
        let (object, rest) = self.chunk.split_first()?;
        self.chunk = rest;
        Some(object)
    }
}

#[cfg(test)]
mod tests;
