//! The body of a GET or LIST, in pieces.
//!
//! Owns: what follows from the length of a body, which may be known only by writing it: pieces are
//! written ahead until the answer is found, and not one more.
//! Refuses: to hold a long body. Apart from pieces written ahead it has one chunk at a time.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use watershed_cache::{Object, Resource, encoding::ListMeta};

use super::{
    Representation,
    indent::Indent,
    list::{CHUNK, ListBody},
};

/// What is still to be sent. A clone is cheap as long as nothing was written.
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

    /// The body of a list of `objects`, which `meta` describes.
    pub(super) fn list(
        resource: &Resource,
        representation: Representation,
        meta: &ListMeta<'_>,
        objects: Vec<Arc<Object>>,
    ) -> Self {
        let list = ListBody::new(resource, representation.form, meta, objects);
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
            Source::Object(rest) => rest.split_to(CHUNK.min(rest.len())),
            Source::List(list) => list.chunk()?,
        };
        let Some(indent) = &mut self.indent else {
            return Some(piece);
        };
        let mut indented = BytesMut::with_capacity(2 * piece.len());
        indent.push(&piece, &mut indented);
        Some(indented.freeze())
    }
}
