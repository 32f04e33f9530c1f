//! A LIST from a snapshot, written as it is sent.
//!
//! Owns: the order and the bytes of a list body. Items are copied from the snapshot into pieces of
//! bounded size when the client takes them, so a list of any length costs a place in the snapshot
//! and one piece.
//! Refuses: to sort, and to hold the snapshot for longer than objects are left in it.
//! Invariant: the bytes are exactly those kube-apiserver sends for the same objects
//! (`watershed_cache::encoding`).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use watershed_cache::{
    Object, Resource, Selection, Snapshot,
    encoding::{Encoding, Extent, Form, ListMeta},
};

/// What a piece holds at most, unless a single object is longer: four full frames of HTTP/2 and of
/// TLS. In bytes.
pub(super) const PIECE: usize = 64 << 10;

/// What the first piece has room for when it is not known how much is selected. Small lists are many.
const FIRST: usize = 4 << 10;

/// The objects of a list that are still to be written: a place in a snapshot.
#[derive(Clone)]
pub(super) struct Walk {
    snapshot: Snapshot,
    selection: Arc<Selection>,
    /// Key the rest begins at.
    from: String,
    /// At most so many.
    left: usize,
}

impl Walk {
    /// The first `objects` of the selected ones whose key is at or after `from`; all if `None`.
    pub(super) fn new(
        snapshot: &Snapshot,
        selection: &Selection,
        from: &str,
        objects: Option<usize>,
    ) -> Self {
        Self {
            snapshot: snapshot.clone(),
            selection: Arc::new(selection.clone()),
            from: from.to_owned(),
            left: objects.unwrap_or(usize::MAX),
        }
    }

    fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        let selected = self.snapshot.iter_from(&self.selection, &self.from);
        selected.take(self.left)
    }

    /// What the first piece will be likely to hold.
    fn first_piece(&self) -> usize {
        let Selection {
            namespace,
            name,
            labels,
            fields,
        } = &*self.selection;
        let is_everything =
            namespace.is_none() && name.is_none() && labels.is_empty() && fields.is_empty();
        let likely = if is_everything { PIECE } else { FIRST };
        likely.min(self.snapshot.bytes())
    }

    /// Appends what fits; false if that was all.
    fn write(&mut self, form: Form, is_first: bool, piece: &mut BytesMut) -> bool {
        // How long metadata is would have to be found out by writing it.
        let is_whole = form.extent == Extent::Whole;
        let mut written = 0;
        let mut last: Option<&Object> = None;
        let mut is_full = false;
        for object in self.objects() {
            is_full = if is_whole {
                piece.len() + form.list_item_len(object) >= PIECE
            } else {
                piece.len() >= PIECE
            };
            if is_full && last.is_some() {
                break;
            }
            form.append_list_item(object, is_first && written == 0, piece);
            (written, last, is_full) = (written + 1, Some(&**object), false);
        }
        let rest = last.filter(|_| is_full);
        let rest = rest.map(|last| format!("{}\0", last.key()));
        let goes_on = rest.is_some();
        if let Some(from) = rest {
            (self.from, self.left) = (from, self.left - written);
        }
        goes_on
    }
}

/// The rest of a list body. Clones share the objects.
#[derive(Clone)]
pub(super) struct ListBody {
    form: Form,
    /// Until it was written.
    head: Option<Bytes>,
    /// Until the last of them was written.
    walk: Option<Walk>,
    tail: Bytes,
    is_over: bool,
}

impl ListBody {
    /// The body of a list of the objects of `walk`, which `meta` describes.
    pub(super) fn new(resource: &Resource, form: Form, meta: &ListMeta<'_>, walk: Walk) -> Self {
        // Protobuf writes the length of everything in front.
        let items = match form.encoding {
            Encoding::Json => 0,
            Encoding::Protobuf => walk.objects().map(|it| form.list_item_len(it)).sum(),
        };
        Self {
            head: Some(form.list_head(resource, meta, items)),
            tail: form.list_tail(resource, meta),
            form,
            walk: Some(walk),
            is_over: false,
        }
    }

    /// The next piece, `None` after the last.
    pub(super) fn piece(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let head = self.head.take();
        let room = match (&head, &self.walk) {
            (Some(head), Some(walk)) => head.len() + walk.first_piece() + self.tail.len(),
            (_, _) => PIECE,
        };
        let mut piece = BytesMut::with_capacity(room.min(PIECE));
        piece.extend_from_slice(head.as_deref().unwrap_or_default());
        if let Some(walk) = &mut self.walk
            && walk.write(self.form, head.is_some(), &mut piece)
        {
            return Some(piece.freeze());
        }
        piece.extend_from_slice(&self.tail);
        (self.walk, self.is_over) = (None, true);
        Some(piece.freeze())
    }

    /// Whether there is nothing left.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
}
