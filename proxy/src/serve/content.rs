//! The body of a GET or LIST, in pieces.
//!
//! Owns: what follows from the length of a body, which may be known only by writing it: pieces are
//! written ahead until the answer is found, and not one more.
//! Refuses: to hold a long body. Apart from pieces written ahead it has one piece at a time.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use watershed_cache::{Resource, encoding::ListMeta};

use super::{
    Representation,
    indent::Indent,
    list::{ListBody, PIECE, Walk},
};

/// What is still to be sent. Clones share what was written and the objects.
#[derive(Clone)]
pub(crate) struct Content {
    /// Written ahead.
    ready: VecDeque<Bytes>,
    source: Source,
    indent: Option<Indent>,
}

#[derive(Clone)]
enum Source {
    Object(Bytes),
    List(ListBody),
}

impl Content {
    /// The body of a GET, which is `body` as long as it is compact.
    pub(super) fn object(body: Bytes, representation: Representation) -> Self {
        Self::new(Source::Object(body), representation)
    }

    /// The body of a list of the objects of `walk`, which `meta` describes.
    pub(super) fn list(
        resource: &Resource,
        representation: Representation,
        meta: &ListMeta<'_>,
        walk: Walk,
    ) -> Self {
        let list = ListBody::new(resource, representation.form, meta, walk);
        Self::new(Source::List(list), representation)
    }

    fn new(source: Source, representation: Representation) -> Self {
        Self {
            ready: VecDeque::new(),
            source,
            indent: representation.pretty.then(Indent::default),
        }
    }

    /// Whether more than `limit` bytes are to come.
    pub(super) fn is_longer_than(&mut self, limit: usize) -> bool {
        let mut written: usize = self.ready.iter().map(Bytes::len).sum();
        while written <= limit {
            let Some(piece) = self.write() else {
                return false;
            };
            written += piece.len();
            self.ready.push_back(piece);
        }
        true
    }

    /// The next piece, `None` after the last.
    pub(crate) fn piece(&mut self) -> Option<Bytes> {
        self.ready.pop_front().or_else(|| self.write())
    }

    /// Whether there is nothing left.
    pub(super) fn is_over(&self) -> bool {
        self.ready.is_empty()
            && match &self.source {
                Source::Object(rest) => rest.is_empty(),
                Source::List(list) => list.is_over(),
            }
    }

    /// Everything that is left, which should be little.
    pub(super) fn whole(mut self) -> Bytes {
        let first = self.piece().unwrap_or_default();
        let Some(second) = self.piece() else {
            return first;
        };
        let mut whole = BytesMut::from(&*first);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.piece() {
            whole.extend_from_slice(&piece);
        }
        whole.freeze()
    }

    fn write(&mut self) -> Option<Bytes> {
        let piece = match &mut self.source {
            Source::Object(rest) if rest.is_empty() => return None,
            Source::Object(rest) => rest.split_to(PIECE.min(rest.len())),
            Source::List(list) => list.piece()?,
        };
        let Some(indent) = &mut self.indent else {
            return Some(piece);
        };
        let mut indented = BytesMut::with_capacity(2 * piece.len());
        indent.push(&piece, &mut indented);
        Some(indented.freeze())
    }
}
