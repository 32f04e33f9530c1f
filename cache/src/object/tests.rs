use super::*;
use crate::encoding::tests::{Pod, pods};

#[test]
fn an_object_is_one_compact_head_and_two_blocks() {
    assert_eq!(size_of::<Object>(), 80);
    let full = Pod::named("a").json();
    let object = Object::decode(Encoding::Json, &pods(), full.as_bytes()).unwrap();
    let fields = pods().fields.labels().len();
    let index = 4 * (1 + fields) + "default/a".len() + "false".len();
    let blocks = allocation::size(full.len()) + allocation::size(index);
    assert_eq!(
        object.memory(),
        96 + blocks,
        "uid and phase are read from the bytes"
    );
}

#[test]
fn large_objects_are_read_like_small_ones() {
    for filler in [0, 65_000, 65_400, 65_536, 200_000] {
        let mut pod = Pod::named("a");
        pod.uid = "x".repeat(filler);
        pod.labels = [("k\"".to_owned(), "v\\".to_owned())].into();
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let full = pod.encode(encoding);
            let object = Object::decode(encoding, &pods(), &full).unwrap();
            let patched = object.with_resource_version(ResourceVersion::new(1 << 60));
            for object in [&object, &patched] {
                assert_eq!((object.key(), object.uid()), ("default/a", &*pod.uid));
                assert_eq!(object.labels().next(), Some(("k\"", "v\\")));
            }
        }
    }
}

#[test]
fn an_object_does_not_keep_the_buffer_it_came_in() {
    let mut buffer = Pod::named("a").json().into_bytes();
    let object = Object::decode(Encoding::Json, &pods(), &buffer).unwrap();
    buffer.fill(0);
    assert_eq!(object.bytes(), Pod::named("a").json().as_bytes());
}

#[test]
fn the_key_of_a_cluster_scoped_object_is_its_name() {
    let mut pod = Pod::named("a");
    pod.namespace.clear();
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let object = Object::decode(encoding, &pods(), &pod.encode(encoding)).unwrap();
        assert_eq!(
            (object.key(), object.namespace(), object.name()),
            ("a", "", "a")
        );
    }
}

#[test]
fn a_label_is_found_among_many() {
    let mut pod = Pod::named("a");
    pod.labels = (0..100)
        .map(|i| (format!("k{i}"), format!("v{i}")))
        .collect();
    let object = Object::decode(Encoding::Json, &pods(), pod.json().as_bytes()).unwrap();
    for i in 0..100 {
        assert_eq!(object.label(&format!("k{i}")), Some(&*format!("v{i}")));
    }
    assert_eq!(
        (object.label(""), object.label("k"), object.label("z")),
        (None, None, None)
    );
}
