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
//! Rejected: a persistent tree of small nodes. It keeps a copy of some objects' pointers as
//! signposts, so that a tenth of all replaced objects stay in memory, and copies four nodes where
//! one chunk is enough.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::object::Object;

/// Objects in a chunk, at most. A copy of a chunk counts a reference for each of them.
const CHUNK: usize = 128;

/// What a place in an order costs besides the object, in bytes: a slot of a chunk, which is two
/// thirds full on the average, its share of the chunk's own parts, and half of what the allocator
/// notes down of an object. As measured by `tests/memory.rs`.
pub(super) const PLACE: usize = 24;

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
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    value: Box<[u8]>,
    key: Box<[u8]>,
}

#[derive(Clone, Debug)]
struct Chunk {
    bound: Arc<Bound>,
    objects: Arc<Vec<Arc<Object>>>,
}

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
        let chunk = self.chunks.get(self.chunk_of(place))?;
        let at = self.order.search(&chunk.objects, place).ok()?;
        Some(&chunk.objects[at])
    }

    /// Puts an object in its place and returns the one that stood there.
    pub(super) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let order = self.order;
        let place = order.place(&object);
        let which = self.chunk_of(place);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(which) else {
            chunks.push(Chunk::of(order, vec![object]));
            self.len += 1;
            return None;
        };
        let at = match order.search(&chunk.objects, place) {
            Ok(at) => {
                let slot = &mut Arc::make_mut(&mut chunk.objects)[at];
                return Some(std::mem::replace(slot, object));
            }
            Err(at) => at,
        };
        self.len += 1;
        if chunk.objects.len() < CHUNK {
            Arc::make_mut(&mut chunk.objects).insert(at, object);
        } else if at == CHUNK {
            // What comes in order, as a list does, fills every chunk.
            chunks.insert(which + 1, Chunk::of(order, vec![object]));
        } else {
            let objects = Arc::make_mut(&mut chunk.objects);
            let mut upper = objects.split_off(CHUNK / 2);
            match at.checked_sub(CHUNK / 2) {
                Some(at) if at > 0 => upper.insert(at, object),
                Some(_) | None => objects.insert(at, object),
            }
            chunks.insert(which + 1, Chunk::of(order, upper));
        }
        None
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, place: Place<'_>) -> Option<Arc<Object>> {
        let which = self.chunk_of(place);
        let at = self.order.search(&self.chunks.get(which)?.objects, place);
        let at = at.ok()?;
        self.len -= 1;
        let chunks = Arc::make_mut(&mut self.chunks);
        let objects = Arc::make_mut(&mut chunks[which].objects);
        let removed = objects.remove(at);
        let left = objects.len();
        let next = chunks.get(which + 1).map(|next| next.objects.len());
        if left == 0 {
            chunks.remove(which);
        } else if next.is_some_and(|next| left + next <= CHUNK / 2) {
            let next = chunks.remove(which + 1);
            let objects = Arc::make_mut(&mut chunks[which].objects);
            objects.extend(next.objects.iter().cloned());
        }
        Some(removed)
    }

    /// The objects at and above a place, in order.
    pub(super) fn walk(&self, start: Place<'_>) -> Walk<'_> {
        let which = self.chunk_of(start);
        let Some(chunk) = self.chunks.get(which) else {
            return Walk::default();
        };
        let (Ok(at) | Err(at)) = self.order.search(&chunk.objects, start);
        Walk {
            chunk: &chunk.objects[at..],
            rest: &self.chunks[which + 1..],
        }
    }

    /// The chunk a place belongs into: the last whose bound is not above it. The first takes all
    /// that is below the others.
    fn chunk_of(&self, place: Place<'_>) -> usize {
        let others = self.chunks.get(1..).unwrap_or_default();
        others.partition_point(|chunk| (&*chunk.bound.value, &*chunk.bound.key) <= place)
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

impl Chunk {
    /// A chunk of some objects; the first is its bound.
    fn of(order: Order, objects: Vec<Arc<Object>>) -> Self {
        let first = objects.first().expect("no chunk is empty");
        let (value, key) = order.place(first);
        let bound = Bound {
            value: value.into(),
            key: key.into(),
        };
        Self {
            bound: Arc::new(bound),
            objects: Arc::new(objects),
        }
    }
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
            (self.chunk, self.rest) = (&next.objects, rest);
        }
        let (object, rest) = self.chunk.split_first()?;
        self.chunk = rest;
        Some(object)
    }
}

#[cfg(test)]
mod tests;
