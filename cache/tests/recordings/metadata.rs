//! `PartialObjectMetadata` as the apiserver sent it.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;
use watershed_cache::encoding::{
    BookmarkTemplate, Encoding, EventType, Extent, Form, ListMeta, MetaVersion, decode_list,
};
use watershed_cache::{Object, Resource, ResourceVersion};

use super::{Of, data, full, objects, unhex};

/// One object, and what clients of its metadata got.
#[derive(Deserialize)]
struct Recording {
    #[serde(flatten)]
    of: Of,
    kind: String,
    json: Option<String>,
    protobuf: Option<String>,
    metadata_json: Option<String>,
    metadata_protobuf: Option<String>,
    added_json: Option<String>,
    added_protobuf: Option<String>,
    list_json: Option<String>,
    list_protobuf: Option<String>,
    #[serde(default)]
    resource_version: u64,
}

const fn metadata(encoding: Encoding) -> Form {
    Form {
        encoding,
        extent: Extent::Metadata(MetaVersion::V1),
    }
}

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

fn list_of_one(form: Form, resource: &Resource, object: &Object, version: u64) -> Bytes {
    let meta = ListMeta {
        resource_version: ResourceVersion::new(version),
        continue_token: None,
        remaining: None,
    };
    let mut list = BytesMut::new();
    list.extend_from_slice(&form.list_head(resource, &meta, form.list_item_len(object)));
    let before = list.len();
    form.append_list_item(object, true, &mut list);
    assert_eq!(list.len() - before, form.list_item_len(object));
    list.extend_from_slice(&form.list_tail(resource, &meta));
    list.freeze()
}

#[test]
fn metadata_is_sent_with_the_bytes_of_the_apiserver() {
    let mut compared = 0;
    for recording in data::<Recording>(include_str!("../data/metadata.json")) {
        let resource = recording.of.resource(&recording.kind);
        let (held, body) = match (&recording.json, &recording.protobuf) {
            (Some(text), _) => (Encoding::Json, Bytes::from(text.clone())),
            (None, Some(hex)) => (Encoding::Protobuf, unhex(hex)),
            (None, None) => panic!("an object was recorded"),
        };
        let object = Object::decode(held, &resource, &body).unwrap();
        let text = |recorded: &Option<String>| recorded.clone().map(Bytes::from);
        let bytes = |recorded: &Option<String>| recorded.as_deref().map(unhex);
        for (encoding, single, added, list) in [
            (
                Encoding::Json,
                text(&recording.metadata_json),
                text(&recording.added_json),
                text(&recording.list_json),
            ),
            (
                Encoding::Protobuf,
                bytes(&recording.metadata_protobuf),
                bytes(&recording.added_protobuf),
                bytes(&recording.list_protobuf),
            ),
        ] {
            let form = metadata(encoding);
            assert!(form.suits(&resource, held) || single.is_none());
            if let Some(single) = single {
                assert_eq!(form.get_body(&object), single);
                compared += 1;
            }
            if let Some(added) = added {
                assert_eq!(form.event_frame(EventType::Added, &object), added);
                compared += 1;
            }
            if let Some(list) = list {
                let version = recording.resource_version;
                assert_eq!(list_of_one(form, &resource, &object, version), list);
                compared += 1;
            }
        }
    }
    assert!(compared >= 8, "{compared} answers were recorded");
}

/// What Go would have sorted and written.
fn sorted(json: &[u8]) -> String {
    let value: Value = serde_json::from_slice(json).expect("an object is JSON");
    let mut text = value.to_string();
    for (plain, escaped) in [
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ] {
        text = text.replace(plain, escaped);
    }
    text
}

/// All recorded objects of built-in kinds, those of lists included.
fn built_in(wanted: Encoding) -> Vec<(Resource, Object)> {
    let mut found = Vec::new();
    for recording in objects() {
        let resource = recording.resource();
        let bodies = recording.bodies().into_iter();
        for (encoding, body) in bodies.filter(|(encoding, _)| *encoding == wanted) {
            let objects = if recording.list {
                let page = decode_list(encoding, &resource, body);
                page.expect("a recorded list").objects
            } else {
                let object = Object::decode(encoding, &resource, full(encoding, &body));
                vec![object.expect("a recorded object")]
            };
            found.extend(objects.into_iter().map(|it| (resource.clone(), it)));
        }
    }
    found.retain(|(resource, _)| !resource.custom);
    found
}

/// The apiserver wrote the metadata of these objects in both encodings; their JSON, sorted as if
/// they were custom resources, must lead back to the same bytes.
#[test]
fn metadata_of_custom_resources_is_written_as_that_of_built_in_ones() {
    let in_protobuf = built_in(Encoding::Protobuf);
    let mut compared = 0;
    for (resource, held) in built_in(Encoding::Json) {
        let custom = Resource {
            custom: true,
            ..resource.clone()
        };
        let sorted = sorted(held.bytes());
        let from = Object::decode(Encoding::Json, &custom, sorted.as_bytes()).unwrap();
        let form = metadata(Encoding::Json);
        assert_eq!(form.get_body(&from), form.get_body(&held));
        let same = |of: &Resource, object: &Object| {
            of.kind == resource.kind
                && (object.key(), object.uid()) == (held.key(), held.uid())
                && object.resource_version() == held.resource_version()
        };
        if let Some((_, held)) = in_protobuf.iter().find(|(of, object)| same(of, object)) {
            let form = metadata(Encoding::Protobuf);
            assert_eq!(form.get_body(&from), form.get_body(held));
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared} objects were recorded in both");
}

#[test]
fn an_object_that_leaves_the_view_carries_the_newer_resource_version_in_its_metadata() {
    for recording in objects().iter().filter(|recording| !recording.list) {
        let resource = recording.resource();
        for (held, body) in recording.bodies() {
            let object = Object::decode(held, &resource, full(held, &body)).unwrap();
            let patched = object.with_resource_version(ResourceVersion::new(123_456_789_012));
            let again = Object::decode(held, &resource, patched.bytes()).unwrap();
            for encoding in BOTH {
                let form = metadata(encoding);
                if form.suits(&resource, held) {
                    assert_eq!(form.get_body(&patched), form.get_body(&again));
                    assert_ne!(form.get_body(&patched), form.get_body(&object));
                }
            }
        }
    }
}

#[test]
fn bookmarks_of_metadata_are_the_recorded_ones() {
    let json = concat!(
        r#"{"type":"BOOKMARK","object":{"kind":"PartialObjectMetadata","#,
        r#""apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20895","#,
        r#""annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
        "\n"
    );
    let protobuf = concat!(
        "0000007b0a08424f4f4b4d41524b126f0a6d6b3873000a270a0e6d6574612e6b38732e696f2f76311215",
        "5061727469616c4f626a6563744d65746164617461123a0a380a0012001a0022002a0032053230383935",
        "3800420062210a196b38732e696f2f696e697469616c2d6576656e74732d656e641204747275651a002200"
    );
    let of = Of {
        group: String::new(),
        version: "v1".to_owned(),
        resource: "configmaps".to_owned(),
    };
    let version = ResourceVersion::new(20895);
    let custom = Resource {
        custom: true,
        ..of.resource("ConfigMap")
    };
    for resource in [of.resource("ConfigMap"), custom] {
        let template = BookmarkTemplate::empty(Encoding::Json, &resource);
        let frame = |encoding| metadata(encoding).bookmark_frame(&template, version, true);
        assert_eq!(frame(Encoding::Json), json);
        assert_eq!(frame(Encoding::Protobuf), unhex(protobuf));
    }
}
