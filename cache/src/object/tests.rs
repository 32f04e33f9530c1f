use super::*;
use crate::encoding::tests::{Pod, pods};

#[test]
fn an_object_is_one_compact_head_and_three_blocks() {
    assert_eq!(size_of::<Object>(), 104);
    let full = Pod::named("a").json();
    let object = Object::decode(Encoding::Json, &pods(), full.as_bytes()).unwrap();
    let fields = pods().fields.labels().len();
    let text = "default/a".len() + "u".len() + "false".len();
    assert_eq!(object.memory(), 104 + full.len() + text + 8 * (1 + fields));
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
