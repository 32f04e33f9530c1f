//! A LIST from a snapshot, written as it is sent.
//!
//! Owns: the order and the bytes of a list body; items are copied into chunks of bounded size when
//! the client takes them, so a list costs references to its objects and one chunk, not its length.
//! Refuses: to select or to sort. It is given objects of one snapshot in key order.
//! Invariant: the bytes are exactly those kube-apiserver sends for the same objects
//! (`watershed_cache::encoding`).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use watershed_cache::{
    Object, Resource,
    encoding::{Encoding, Form, ListMeta},
};

/// What a chunk holds at least, unless it is the last; one object more at most. In bytes.
pub(super) const CHUNK: usize = 64 << 10;

/// With fewer objects left, a chunk grows as it is filled. Small lists are many.
const FEW: usize = 32;

/// The rest of a list body. Clones share the objects.
#[derive(Clone)]
pub(super) struct ListBody {
    form: Form,
    head: Option<Bytes>,
    objects: Arc<Vec<Arc<Object>>>,
    /// How many of them were written.
    written: usize,
    tail: Option<Bytes>,
}

impl ListBody {
    /// The body of a list of `objects`, which `meta` describes.
    pub(super) fn new(
        resource: &Resource,
        form: Form,
        meta: &ListMeta<'_>,
        objects: Vec<Arc<Object>>,
    ) -> Self {
        // Protobuf writes the length of everything in front.
        let items = match form.encoding {
            Encoding::Json => 0,
            Encoding::Protobuf => objects.iter().map(|it| form.list_item_len(it)).sum(),
        };
        Self {
            head: Some(form.list_head(resource, meta, items)),
            tail: Some(form.list_tail(resource, meta)),
            form,
            objects: Arc::new(objects),
            written: 0,
        }
    }

    /// The next piece, `None` after the last.
    pub(super) fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        if self.objects.len() - self.written > FEW {
            chunk.reserve(CHUNK + CHUNK / 8);
        }
        if let Some(head) = self.head.take() {
            chunk.extend_from_slice(&head);
        }
        while chunk.len() < CHUNK {
            let Some(object) = self.objects.get(self.written) else {
                chunk.extend_from_slice(&self.tail.take()?);
                break;
            };
            let is_first = self.written == 0;
            self.form.append_list_item(object, is_first, &mut chunk);
            self.written += 1;
        }
        Some(chunk.freeze())
    }
}
