//! The body of a list out of a snapshot, in pieces as it is sent.

use std::hint::black_box;

use bytes::BytesMut;
use watershed_cache::Snapshot;
use watershed_cache::encoding::{Encoding, ListMeta, append_list_item, list_head, list_tail};

use crate::case::{Case, Steps};
use crate::subject;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(2_000, "").runs(10),
        case(100_000, "").runs(1),
        case(100_000, "spec.nodeName=node-00007").runs(10),
    ]
}

fn case(objects: usize, fields: &'static str) -> Case {
    let name = match fields {
        "" => format!("list/all of {objects}"),
        _ => format!("list/one node of {objects}"),
    };
    Case::new(name, move || {
        let (_writer, cache) = subject::cache(objects);
        let snapshot = subject::snapshot(&cache);
        Steps::plain(move || build(&snapshot, fields))
    })
}

fn build(snapshot: &Snapshot, fields: &str) {
    let meta = ListMeta {
        resource_version: snapshot.resource_version(),
        continue_token: None,
        remaining: None,
    };
    black_box(list_head(Encoding::Json, &subject::PODS, &meta, 0));
    let mut piece = BytesMut::with_capacity(PIECE);
    let selection = subject::select(fields);
    for (place, object) in snapshot.iter(&selection).enumerate() {
        append_list_item(object, place == 0, &mut piece);
        if piece.len() >= PIECE {
            black_box(piece.split());
            piece.reserve(PIECE);
        }
    }
    black_box(piece.split());
    black_box(list_tail(Encoding::Json, &subject::PODS, &meta));
}
