//! Laws that hold for both encodings.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::json;

use super::protobuf::{push_bytes, push_header, push_varint};
use super::*;

/// A Pod, as far as the cache looks into one.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: u64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) node_name: Option<String>,
    pub(crate) host_network: Option<bool>,
    pub(crate) pod_ips: Vec<String>,
}

impl Pod {
    pub(crate) fn named(name: &str) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: "u".to_owned(),
            resource_version: 7,
            labels: BTreeMap::new(),
            node_name: None,
            host_network: None,
            pod_ips: Vec::new(),
        }
    }

    pub(crate) fn json(&self) -> String {
        // serde_json sorts keys, which is not what an apiserver does: kind and apiVersion stand
        // last here.
        let value = json!({
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
                "resourceVersion": self.resource_version.to_string(),
                "labels": self.labels,
                "managedFields": [{"fieldsV1": {"f:metadata": {"f:labels": {}}}, "time": null}],
            },
            "spec": {"nodeName": self.node_name, "hostNetwork": self.host_network, "volumes": [{"name": "x"}]},
            "status": {"podIPs": self.pod_ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()},
        });
        let members = value.to_string();
        format!("{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",{}", &members[1..])
    }

    pub(crate) fn protobuf(&self) -> Vec<u8> {
        let mut metadata = Vec::new();
        push_bytes(&mut metadata, 1, self.name.as_bytes());
        push_bytes(&mut metadata, 2, &[]);
        push_bytes(&mut metadata, 3, self.namespace.as_bytes());
        push_bytes(&mut metadata, 5, self.uid.as_bytes());
        push_bytes(
            &mut metadata,
            6,
            self.resource_version.to_string().as_bytes(),
        );
        push_bytes(&mut metadata, 8, &[]);
        for (key, value) in &self.labels {
            let mut entry = Vec::new();
            push_bytes(&mut entry, 1, key.as_bytes());
            push_bytes(&mut entry, 2, value.as_bytes());
            push_bytes(&mut metadata, 11, &entry);
        }
        let mut spec = Vec::new();
        push_bytes(&mut spec, 1, b"a volume");
        if let Some(node_name) = &self.node_name {
            push_bytes(&mut spec, 10, node_name.as_bytes());
        }
        if let Some(host_network) = self.host_network {
            spec.put_u8(11 << 3);
            push_varint(&mut spec, u64::from(host_network));
        }
        let mut status = Vec::new();
        for ip in &self.pod_ips {
            let mut entry = Vec::new();
            push_bytes(&mut entry, 1, ip.as_bytes());
            push_bytes(&mut status, 12, &entry);
        }
        let mut raw = Vec::new();
        for (number, message) in [(1, &metadata), (2, &spec), (3, &status)] {
            push_bytes(&mut raw, number, message);
        }
        let mut full = Vec::new();
        protobuf::push_envelope(&mut full, "v1", "Pod", raw.len());
        full.extend_from_slice(&raw);
        full.extend_from_slice(protobuf::ENVELOPE_TAIL);
        full
    }

    pub(crate) fn encode(&self, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Json => self.json().into_bytes(),
            Encoding::Protobuf => self.protobuf(),
        }
    }
}

pub(crate) fn pods() -> Resource {
    Resource::pods()
}

pub(crate) fn any_pod() -> impl Strategy<Value = Pod> {
    let text = || any::<String>();
    let labels = proptest::collection::btree_map(text(), text(), 0..5);
    let name = text().prop_filter("an object has a name", |name| !name.is_empty());
    let spec = (any::<Option<String>>(), any::<Option<bool>>());
    let pod_ips = proptest::collection::vec(text(), 0..3);
    (text(), name, text(), any::<u64>(), labels, spec, pod_ips).prop_map(
        |(namespace, name, uid, resource_version, labels, (node_name, host_network), pod_ips)| {
            Pod {
                namespace,
                name,
                uid,
                resource_version,
                labels,
                node_name,
                host_network,
                pod_ips,
            }
        },
    )
}

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

proptest! {
    // Every case goes through both encodings; a few are enough, many are slow.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_lifted_is_what_was_written(pod in any_pod()) {
        let resource = pods();
        for encoding in BOTH {
            let full = pod.encode(encoding);
            let object = Object::decode(encoding, &resource, &full).unwrap();
            prop_assert_eq!(object.bytes(), &full);
            prop_assert_eq!(object.name(), &pod.name);
            prop_assert_eq!(object.namespace(), &pod.namespace);
            prop_assert_eq!(object.uid(), &pod.uid);
            prop_assert_eq!(object.resource_version(), ResourceVersion::new(pod.resource_version));
            let labels: Vec<_> = pod.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
            prop_assert_eq!(object.labels().collect::<Vec<_>>(), labels);
            for (key, value) in &pod.labels {
                prop_assert_eq!(object.label(key), Some(&**value));
            }
            let field = |label| object.field(resource.fields.index_of(label).unwrap());
            prop_assert_eq!(field("spec.nodeName"), pod.node_name.as_deref().unwrap_or_default());
            prop_assert_eq!(field("spec.host"), field("spec.nodeName"));
            let host_network = pod.host_network.unwrap_or_default();
            prop_assert_eq!(field("spec.hostNetwork"), if host_network { "true" } else { "false" });
            let ip = pod.pod_ips.first().map(String::as_str).unwrap_or_default();
            prop_assert_eq!(field("status.podIP"), ip);
            prop_assert_eq!(field("status.podIPs"), "");
            prop_assert_eq!(field("metadata.name"), &pod.name);
            prop_assert_eq!(field("metadata.namespace"), &pod.namespace);
        }
    }

    #[test]
    fn a_new_resource_version_changes_nothing_else(pod in any_pod(), digits: u64) {
        let other = Pod { resource_version: digits, ..pod.clone() };
        for encoding in BOTH {
            let resource = pods();
            let object = Object::decode(encoding, &resource, &pod.encode(encoding)).unwrap();
            let expected = Object::decode(encoding, &resource, &other.encode(encoding)).unwrap();
            prop_assert_eq!(object.with_resource_version(ResourceVersion::new(digits)), expected);
        }
    }

    #[test]
    fn a_list_gives_back_the_objects_it_was_made_of(
        pods_in in proptest::collection::vec(any_pod(), 0..4),
        version: u64,
        token in proptest::option::of("[A-Za-z0-9_-]{1,40}"),
        remaining in proptest::option::of(1..i64::MAX),
    ) {
        let resource = pods();
        for encoding in BOTH {
            for custom in [false, true] {
                let resource = Resource { custom, ..resource.clone() };
                let objects: Vec<Object> = pods_in
                    .iter()
                    .map(|pod| Object::decode(encoding, &resource, &pod.encode(encoding)).unwrap())
                    .collect();
                let meta = ListMeta {
                    resource_version: ResourceVersion::new(version),
                    continue_token: token.as_deref(),
                    remaining,
                };
                let items_len = objects.iter().map(list_item_len).sum();
                let mut body = BytesMut::from(&*list_head(encoding, &resource, &meta, items_len));
                for (index, object) in objects.iter().enumerate() {
                    append_list_item(object, index == 0, &mut body);
                }
                body.extend_from_slice(&list_tail(encoding, &resource, &meta));
                let page = decode_list(encoding, &resource, body.freeze()).unwrap();
                prop_assert_eq!(page.resource_version, meta.resource_version);
                prop_assert_eq!(page.continue_token.as_deref(), meta.continue_token);
                prop_assert_eq!(page.remaining, meta.remaining);
                prop_assert_eq!(page.objects, objects);
            }
        }
    }

    #[test]
    fn damaged_bytes_are_never_a_panic(pod in any_pod(), damage in any::<(usize, u8)>()) {
        let resource = pods();
        for encoding in BOTH {
            let object = Object::decode(encoding, &resource, &pod.encode(encoding)).unwrap();
            let frame = event_frame(EventType::Added, &object);
            let start = match encoding { Encoding::Json => 0, Encoding::Protobuf => 4 };
            let mut frame = frame[start..].to_vec();
            frame.pop_if(|last| *last == b'\n'); // JSON is whole without it
            let at = damage.0 % frame.len();
            frame[at] = damage.1;
            // What still decodes must also still encode and patch.
            if let Ok(WatchEvent::Object { object, .. }) = decode_event(encoding, &resource, &frame) {
                let patched = object.with_resource_version(ResourceVersion::new(1));
                prop_assert!(Object::decode(encoding, &resource, patched.bytes()).is_ok());
                let mut list = BytesMut::new();
                append_list_item(&object, true, &mut list);
                prop_assert_eq!(list.len(), list_item_len(&object));
            }
            frame.truncate(at);
            prop_assert!(decode_event(encoding, &resource, &frame).is_err());
        }
    }

    #[test]
    fn any_bytes_are_never_a_panic(bytes: Vec<u8>) {
        let resource = pods();
        for encoding in BOTH {
            let _ = decode_event(encoding, &resource, &bytes);
            let _ = decode_list(encoding, &resource, Bytes::from(bytes.clone()));
            let mut enveloped = b"k8s\0".to_vec();
            enveloped.extend_from_slice(&bytes);
            let _ = Object::decode(encoding, &resource, &enveloped);
        }
    }
}

#[test]
fn an_object_of_another_kind_is_refused() {
    let secrets = Resource {
        kind: "Secret".into(),
        ..pods()
    };
    for encoding in BOTH {
        let full = Pod::named("a").encode(encoding);
        let error = Object::decode(encoding, &secrets, &full).unwrap_err();
        assert_eq!(error.to_string(), "expected v1 Secret, found \"v1 Pod\"");
    }
}

#[test]
fn an_object_without_name_or_resource_version_is_refused() {
    for json in [
        r#"{"metadata":{"resourceVersion":"1"}}"#,
        r#"{"metadata":{"name":"","resourceVersion":"1"}}"#,
        r#"{"metadata":{"name":"a"}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":1}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":"x"}}"#,
        r#"{"metadata":{"name":1,"resourceVersion":"1"}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":"1","labels":[]}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":"1","labels":{"a":1}}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":"1"},"spec":{"nodeName":{}}}"#,
        r#"{"metadata":null}"#,
        "{}",
    ] {
        let error = Object::decode(Encoding::Json, &pods(), json.as_bytes()).unwrap_err();
        assert!(matches!(error, DecodeError::Field(_)), "{json}: {error}");
    }
}

#[test]
fn kind_and_api_version_are_cut_out_wherever_they_stand() {
    let metadata = r#""metadata":{"name":"a","resourceVersion":"1"}"#;
    for json in [
        format!(r#"{{{metadata},"kind":"Pod","apiVersion":"v1"}}"#),
        format!(r#"{{"apiVersion":"v1",{metadata},"kind":"Pod"}}"#),
        format!(r#"{{"apiVersion":"v1","kind":"Pod",{metadata}}}"#),
        format!(r#"{{ "kind":"Pod","apiVersion":"v1",{metadata}}}"#),
        format!(r#"{{"kind":"Pod","apiVersion":"v1",{metadata}}}"#),
        format!(r#"{{"kind":"x","kind":"Pod","apiVersion":"v1",{metadata}}}"#),
    ] {
        let object = Object::decode(Encoding::Json, &pods(), json.as_bytes()).unwrap();
        let patched = object.with_resource_version(ResourceVersion::new(1));
        for object in [object, patched] {
            let mut item = BytesMut::new();
            append_list_item(&object, true, &mut item);
            assert_eq!(item, format!("{{{metadata}}}"), "{json}");
            assert_eq!(list_item_len(&object), item.len());
        }
    }
}

#[test]
fn a_list_of_another_kind_is_refused() {
    let body = |kind| {
        Bytes::from(format!(
            r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":null}}"#
        ))
    };
    assert!(
        decode_list(Encoding::Json, &pods(), body("PodList"))
            .unwrap()
            .objects
            .is_empty()
    );
    let error = decode_list(Encoding::Json, &pods(), body("Pods")).unwrap_err();
    assert_eq!(error.to_string(), "expected v1 PodList, found \"v1 Pods\"");
}

#[test]
fn the_parts_of_an_event_may_come_in_any_order() {
    let object = Pod::named("a").json();
    for frame in [
        format!(r#" {{"object" : {object} , "type":"\u0041DDED"}} "#),
        format!(r#"{{"extra":[{{}}],"type":"ADDED","object":{object}}}"#),
        format!(r#"{{"type":"ERROR","object":{{}},"type":"ADDED","object":{object}}}"#),
    ] {
        let event = decode_event(Encoding::Json, &pods(), frame.as_bytes()).unwrap();
        let WatchEvent::Object {
            event_type,
            object: decoded,
        } = event
        else {
            panic!("{frame}")
        };
        assert_eq!(
            (event_type, decoded.bytes()),
            (EventType::Added, object.as_bytes())
        );
    }
}

#[test]
fn an_error_says_when_to_retry() {
    let json = r#"{"type":"ERROR","object":{"kind":"Status","code":429,"details":{"retryAfterSeconds":3}}}"#;
    let mut details = Vec::new();
    push_bytes(&mut details, 1, b"name");
    details.extend_from_slice(&[5 << 3, 3]);
    let mut status = Vec::new();
    push_bytes(&mut status, 5, &details);
    status.extend_from_slice(&[6 << 3, 0xad, 0x03]);
    let mut full = Vec::new();
    protobuf::push_envelope(&mut full, "v1", "Status", status.len());
    full.extend_from_slice(&status);
    let mut event = Vec::new();
    push_bytes(&mut event, 1, b"ERROR");
    push_header(&mut event, 2, protobuf::bytes_field_len(full.len()));
    push_bytes(&mut event, 1, &full);
    for (encoding, frame) in [
        (Encoding::Json, json.as_bytes()),
        (Encoding::Protobuf, &*event),
    ] {
        let decoded = decode_event(encoding, &pods(), frame).unwrap();
        let WatchEvent::Error(status) = decoded else {
            panic!("not an error: {decoded:?}")
        };
        assert_eq!((status.code, status.retry_after), (429, Some(3)));
    }
}
