use std::collections::BTreeMap;

use super::*;
use crate::testing::{pod, pods};

/// Objects of a shelf by place, and the rules of its chunks.
fn contents(shelf: &Shelf) -> Vec<(String, u64)> {
    let bounds = shelf.chunks.iter().skip(1).map(|chunk| chunk.bound.place());
    assert!(bounds.is_sorted_by(|a, b| a < b), "bounds are in order");
    for chunk in &**shelf.chunks {
        let Content { objects, tags } = &*chunk.content;
        assert!((1..=CHUNK).contains(&objects.len()));
        let expected = objects.iter().map(|object| tag(object.key_bytes()));
        assert!(expected.eq(tags.iter().copied()), "a tag for each object");
    }
    let all: Vec<_> = shelf.walk((&[], &[])).collect();
    assert_eq!(all.len(), shelf.len());
    let places = all.iter().map(|object| shelf.order.place(object));
    assert!(places.is_sorted_by(|a, b| a < b), "objects are in order");
    all.iter()
        .map(|object| (object.key().to_owned(), object.resource_version().get()))
        .collect()
}

#[test]
fn any_history_leaves_what_a_map_holds_and_copies_do_not_change() {
    let node = pods().fields.trigger().unwrap();
    for order in [Order::Key, Order::Field(node)] {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut shelf = Shelf::new(order);
        let mut model = BTreeMap::new();
        let mut copies = Vec::new();
        for step in 0..4_000_u64 {
            // Grows, then shrinks to nothing, so that chunks split, merge and go.
            let grows = rng.u64(..4_000) >= step;
            let number = rng.u32(..1_000);
            let node = number % 7;
            let object = Arc::new(pod(&format!("a/x{number} @n{node}"), step + 1));
            let place = (
                node * u32::from(order != Order::Key),
                object.key().to_owned(),
            );
            let expected = if grows {
                model.insert(place, object.resource_version())
            } else {
                model.remove(&place)
            };
            let found = if grows {
                shelf.insert(Arc::clone(&object))
            } else {
                shelf.remove(order.place(&object))
            };
            assert_eq!(found.map(|old| old.resource_version()), expected);
            assert_eq!(shelf.find(order.place(&object)).is_some(), grows);
            if step % 500 == 0 {
                copies.push((shelf.clone(), contents(&shelf)));
                let own = model.iter().map(|((_, key), at)| (key.clone(), at.get()));
                assert_eq!(contents(&shelf), own.collect::<Vec<_>>());
            }
        }
        for (copy, then) in copies {
            assert_eq!(contents(&copy), then);
        }
    }
}

#[test]
fn a_walk_starts_at_the_first_object_that_is_not_below() {
    let mut shelf = Shelf::new(Order::Key);
    for number in 0..1_000 {
        shelf.insert(Arc::new(pod(&format!("a/x{:04}", 2 * number), 1)));
    }
    assert!(
        shelf.chunks.len() <= 1_000 / CHUNK + 1,
        "a list fills chunks"
    );
    for number in 0..2_000_usize {
        let start = format!("a/x{number:04}");
        let left = shelf.walk((&[], start.as_bytes())).count();
        assert_eq!(left, 1_000 - number.div_ceil(2), "{start}");
    }
    assert_eq!(shelf.walk((&[], b"b")).count(), 0);
}
