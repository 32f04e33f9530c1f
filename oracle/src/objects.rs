//! Objects and lists of Pods against serde_json and the schema of the embedded apiserver.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};
use watershed_cache::encoding::{
    self, Encoding, ListMeta, append_list_item, decode_list, list_head, list_item_len, list_tail,
};
use watershed_cache::{Object, Resource, ResourceVersion};
use watershed_loadtest::apiserver::resources::{self, Registry};
use watershed_loadtest::apiserver::schema::{Schema, envelope};
use watershed_loadtest::apiserver::selectors::field_value;

static PODS: LazyLock<Resource> = LazyLock::new(Resource::pods);

static JUDGE: LazyLock<std::sync::Arc<resources::Resource>> = LazyLock::new(|| {
    let registry = Registry::builtin();
    registry.find("", "v1", "pods").expect("pods are served")
});

const FIELDS: [&str; 6] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.hostNetwork",
    "spec.schedulerName",
    "status.phase",
];

/// A Pod in JSON: what is lifted is what serde_json finds, and a new resource version changes
/// nothing else.
pub fn json(input: &[u8]) {
    let Ok(object) = Object::decode(Encoding::Json, &PODS, input) else {
        return;
    };
    // Fails on numbers, depths and surrogates that only the scanner takes.
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    compare(&object, &value);
    let patched = object.with_resource_version(ResourceVersion::new(77));
    let mut expected = value.clone();
    expected["metadata"]["resourceVersion"] = Value::from("77");
    let found: Value = serde_json::from_slice(patched.bytes()).expect("still JSON");
    assert_eq!(found, expected, "only the resource version changes");
    replace(&object, &patched);
    compare_item(&object, value);
}

fn compare_item(object: &Object, mut value: Value) {
    let mut item = BytesMut::new();
    append_list_item(object, true, &mut item);
    assert_eq!(item.len(), list_item_len(object), "announced length");
    let members = value.as_object_mut().expect("a Pod is an object");
    members.retain(|key, _| key != "kind" && key != "apiVersion");
    let item: Value = serde_json::from_slice(&item).expect("an item is JSON");
    assert_eq!(item, value, "an item is the object without its type");
}

/// The message of a Pod in protobuf, without the envelope.
pub fn protobuf(input: &[u8]) {
    let full = envelope("v1", "Pod", input);
    let Ok(object) = Object::decode(Encoding::Protobuf, &PODS, &full) else {
        return;
    };
    let patched = object.with_resource_version(ResourceVersion::new(77));
    replace(&object, &patched);
    // A message that comes in two parts is put together by Go and by the cache, but not by the
    // embedded apiserver.
    let fields = encoding::door::protobuf(input).expect("the object was decoded");
    let numbers: BTreeSet<u32> = fields.iter().map(|(number, ..)| *number).collect();
    if numbers.len() < fields.len() {
        return;
    }
    let Ok(value) = Schema::builtin().from_protobuf("v1", "Pod", input) else {
        return;
    };
    compare(&object, &value);
    let raw = watershed_loadtest::apiserver::schema::open_envelope(patched.bytes())
        .expect("an envelope")
        .raw;
    let mut expected = value;
    expected["metadata"]["resourceVersion"] = Value::from("77");
    let found = Schema::builtin().from_protobuf("v1", "Pod", raw);
    assert_eq!(found, Ok(expected), "only the resource version changes");
}

/// A patched object is what its bytes say, whatever was patched before.
fn replace(object: &Object, patched: &Object) {
    let decoded = Object::decode(object.encoding(), &PODS, patched.bytes());
    assert_eq!(decoded.as_ref(), Ok(patched), "what its bytes say");
    let version = object.resource_version();
    let there = object.with_resource_version(version);
    let back = patched.with_resource_version(version);
    assert_eq!(back, there, "there and back");
}

fn compare(object: &Object, value: &Value) {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    assert_eq!(object.name(), text("/metadata/name").unwrap_or_default());
    assert_eq!(
        object.namespace(),
        text("/metadata/namespace").unwrap_or_default()
    );
    assert_eq!(object.uid(), text("/metadata/uid").unwrap_or_default());
    let version = text("/metadata/resourceVersion").and_then(|text| text.parse().ok());
    assert_eq!(Some(object.resource_version().get()), version);
    let labels: BTreeMap<&str, &str> = object.labels().collect();
    let none = Map::new();
    let theirs: BTreeMap<&str, &str> = value
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .unwrap_or(&none)
        .iter()
        .map(|(key, value)| (&**key, value.as_str().unwrap_or_default()))
        .collect();
    assert_eq!(labels, theirs, "labels");
    for label in FIELDS {
        let index = PODS.fields.index_of(label).expect("a label of pods");
        let theirs: Cow<'_, str> = field_value(&JUDGE, value, label);
        assert_eq!(object.field(index), theirs, "{label}");
    }
}

/// A list of Pods in JSON; written again it says the same.
pub fn list(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let _ = decode_list(Encoding::Protobuf, &PODS, body.clone());
    let Ok(page) = decode_list(Encoding::Json, &PODS, body) else {
        return;
    };
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let none = Vec::new();
    let items = value["items"].as_array().unwrap_or(&none);
    assert_eq!(page.objects.len(), items.len(), "items");
    for (object, item) in page.objects.iter().zip(items) {
        compare(object, item);
        let mut whole: Value = serde_json::from_slice(object.bytes()).expect("an object is JSON");
        for key in ["kind", "apiVersion"] {
            if item.get(key).is_none() {
                whole.as_object_mut().expect("an object").remove(key);
            }
        }
        assert_eq!(&whole, item, "the object is the item");
    }
    let meta = ListMeta {
        resource_version: page.resource_version,
        continue_token: None,
        remaining: page.remaining,
    };
    let items_len = page.objects.iter().map(list_item_len).sum();
    let mut again = BytesMut::from(&list_head(Encoding::Json, &PODS, &meta, items_len)[..]);
    for (index, object) in page.objects.iter().enumerate() {
        append_list_item(object, index == 0, &mut again);
    }
    again.extend_from_slice(&list_tail(Encoding::Json, &PODS, &meta));
    let again = decode_list(Encoding::Json, &PODS, again.freeze()).expect("a list");
    assert_eq!(again.resource_version, page.resource_version);
    assert_eq!(again.remaining, page.remaining);
    let lifted = |objects: &[Object]| -> Vec<(String, encoding::Encoding, ResourceVersion)> {
        objects
            .iter()
            .map(|it| (it.key().to_owned(), it.encoding(), it.resource_version()))
            .collect()
    };
    assert_eq!(
        lifted(&again.objects),
        lifted(&page.objects),
        "written again"
    );
}
