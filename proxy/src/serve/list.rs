//! A LIST from a snapshot, written as it is sent.
//!
//! Owns: the order and the bytes of a list body; items are copied into chunks of bounded size when
//! the client takes them, so a list costs references to its objects and one chunk, not its length.
//! Refuses: to select or to sort. It is given objects of one snapshot in key order.
//! Invariant: the bytes are exactly those kube-apiserver sends for the same objects
//! (`watershed_cache::encoding`), and their number is known before the first is sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use watershed_cache::{
    Object, Resource,
    encoding::{self, Encoding, ListMeta},
};

/// What a chunk holds at least, unless it is the last; one object more at most. In bytes.
const CHUNK: usize = 64 << 10;

/// The rest of a list body.
pub(crate) struct ListBody {
    head: Option<Bytes>,
    objects: std::vec::IntoIter<Arc<Object>>,
    tail: Option<Bytes>,
    is_first: bool,
    left: usize,
}

impl ListBody {
    /// The body of a list of `objects`, which `meta` describes.
    pub(crate) fn new(
        resource: &Resource,
        encoding: Encoding,
        meta: &ListMeta<'_>,
        objects: Vec<Arc<Object>>,
    ) -> Self {
        let items: usize = objects.iter().map(|it| encoding::list_item_len(it)).sum();
        let commas = match encoding {
            Encoding::Json => objects.len().saturating_sub(1),
            Encoding::Protobuf => 0,
        };
        let head = encoding::list_head(encoding, resource, meta, items);
        let tail = encoding::list_tail(encoding, resource, meta);
        Self {
            left: head.len() + items + commas + tail.len(),
            head: Some(head),
            objects: objects.into_iter(),
            tail: Some(tail),
            is_first: true,
        }
    }

    /// Bytes still to come.
    pub(crate) fn len(&self) -> usize {
        self.left
    }

    /// The next piece, `None` after the last.
    pub(crate) fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::with_capacity(CHUNK.min(self.left));
        if let Some(head) = self.head.take() {
            chunk.extend_from_slice(&head);
        }
        while chunk.len() < CHUNK {
            let Some(object) = self.objects.next() else {
                chunk.extend_from_slice(&self.tail.take()?);
                break;
            };
            encoding::append_list_item(&object, self.is_first, &mut chunk);
            self.is_first = false;
        }
        self.left -= chunk.len();
        Some(chunk.freeze())
    }
}
