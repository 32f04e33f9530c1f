//! The decoders, encoders and selectors against recordings of a kube-apiserver 1.36.
//!
//! `data/` holds bodies and frames as they came, protobuf in hexadecimal, and what the apiserver
//! answered to selectors.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use watershed_cache::encoding::{
    BookmarkTemplate, Encoding, EventType, FrameSplitter, ListMeta, WatchEvent, append_list_item,
    decode_event, decode_list, event_frame, get_body, list_head, list_item_len, list_tail,
};
use watershed_cache::selector::{FieldSelector, LabelSelector, SelectorError};
use watershed_cache::{FieldSet, Object, Resource, ResourceVersion};

#[path = "recordings/metadata.rs"]
mod metadata;

/// A body or frame of one resource, in one encoding or both.
#[derive(Deserialize)]
struct Recording {
    #[serde(flatten)]
    of: Of,
    kind: String,
    #[serde(default)]
    list: bool,
    json: Option<String>,
    protobuf: Option<String>,
}

#[derive(Deserialize)]
struct Of {
    group: String,
    version: String,
    resource: String,
}

impl Of {
    fn custom(&self) -> bool {
        self.group.ends_with("example.com")
    }

    fn fields(&self) -> Arc<FieldSet> {
        match (&*self.resource, self.custom()) {
            ("widgets", _) => FieldSet::custom(true, [".spec.color", ".spec.size", ".spec.on"]),
            ("planets", _) => FieldSet::custom(false, []),
            (_, true) => FieldSet::custom(true, []),
            (_, false) => FieldSet::builtin(&self.group, &self.version, &self.resource)
                .unwrap_or_else(FieldSet::unknown),
        }
    }

    fn resource(&self, kind: &str) -> Resource {
        Resource {
            group: (*self.group).into(),
            version: (*self.version).into(),
            resource: (*self.resource).into(),
            kind: kind.into(),
            namespaced: true,
            custom: self.custom(),
            fields: self.fields(),
        }
    }
}

impl Recording {
    fn resource(&self) -> Resource {
        self.of.resource(&self.kind)
    }

    fn bodies(&self) -> Vec<(Encoding, Bytes)> {
        let json = self
            .json
            .as_ref()
            .map(|text| (Encoding::Json, Bytes::from(text.clone())));
        let protobuf = self
            .protobuf
            .as_ref()
            .map(|hex| (Encoding::Protobuf, unhex(hex)));
        json.into_iter().chain(protobuf).collect()
    }
}

fn unhex(hex: &str) -> Bytes {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("data is hexadecimal") as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn data<T: for<'de> Deserialize<'de>>(text: &str) -> Vec<T> {
    serde_json::from_str(text).expect("data has the shape the test declares")
}

fn objects() -> Vec<Recording> {
    data(include_str!("data/objects.json"))
}

/// The object bytes of a GET body.
fn full(encoding: Encoding, body: &Bytes) -> &[u8] {
    match encoding {
        Encoding::Json => body
            .strip_suffix(b"\n")
            .expect("a JSON body ends with a newline"),
        Encoding::Protobuf => body,
    }
}

#[test]
fn a_get_is_answered_with_the_bytes_of_the_apiserver() {
    for recording in objects().iter().filter(|recording| !recording.list) {
        for (encoding, body) in recording.bodies() {
            let object = Object::decode(encoding, &recording.resource(), full(encoding, &body));
            assert_eq!(get_body(&object.unwrap()), body);
        }
    }
}

#[test]
fn a_list_is_rebuilt_byte_for_byte() {
    let mut items = 0;
    for recording in objects().iter().filter(|recording| recording.list) {
        let resource = recording.resource();
        for (encoding, body) in recording.bodies() {
            let page = decode_list(encoding, &resource, body.clone()).unwrap();
            let meta = ListMeta {
                resource_version: page.resource_version,
                continue_token: page.continue_token.as_deref(),
                remaining: page.remaining,
            };
            let items_len = page.objects.iter().map(list_item_len).sum();
            let mut rebuilt = BytesMut::from(&*list_head(encoding, &resource, &meta, items_len));
            for (index, object) in page.objects.iter().enumerate() {
                let before = rebuilt.len();
                append_list_item(object, index == 0, &mut rebuilt);
                let comma = usize::from(encoding == Encoding::Json && index > 0);
                assert_eq!(rebuilt.len() - before, list_item_len(object) + comma);
                items += 1;
            }
            rebuilt.extend_from_slice(&list_tail(encoding, &resource, &meta));
            assert_eq!(rebuilt, body);
        }
    }
    assert!(items > 40, "the recordings hold lists with items");
}

#[test]
fn a_list_item_is_the_object_of_a_get() {
    let recordings = objects();
    let mut compared = 0;
    for list in recordings.iter().filter(|recording| recording.list) {
        for (encoding, body) in list.bodies() {
            for object in decode_list(encoding, &list.resource(), body)
                .unwrap()
                .objects
            {
                let again = Object::decode(encoding, &list.resource(), object.bytes()).unwrap();
                assert_eq!(object, again);
                compared += recordings
                    .iter()
                    .filter(|get| !get.list && get.of.resource == list.of.resource)
                    .flat_map(Recording::bodies)
                    .filter(|(other, body)| {
                        *other == encoding && full(encoding, body) == object.bytes()
                    })
                    .count();
            }
        }
    }
    assert!(
        compared > 20,
        "objects were recorded both alone and in a list"
    );
}

/// All objects recorded in this encoding, alone or in an event. A `DELETED` event may carry the older
/// body at the newer resource version, so those are left out.
fn recorded(encoding: Encoding) -> Vec<(Resource, Object)> {
    let mut found = Vec::new();
    for recording in objects().iter().filter(|recording| !recording.list) {
        let resource = recording.resource();
        for (_, body) in recording
            .bodies()
            .iter()
            .filter(|(other, _)| *other == encoding)
        {
            let object = Object::decode(encoding, &resource, full(encoding, body));
            found.push((resource.clone(), object.expect("a recorded object")));
        }
    }
    for recording in data::<Recording>(include_str!("data/events.json")) {
        let resource = recording.resource();
        for (_, body) in recording
            .bodies()
            .iter()
            .filter(|(other, _)| *other == encoding)
        {
            let mut splitter = FrameSplitter::new(encoding, body.len());
            splitter.push(body.clone());
            let frame = splitter
                .next_frame()
                .expect("a frame")
                .expect("a whole one");
            let event = decode_event(encoding, &resource, &frame).expect("a recorded event");
            if let WatchEvent::Object {
                event_type: EventType::Added | EventType::Modified,
                object,
            } = event
            {
                found.push((resource.clone(), object));
            }
        }
    }
    found
}

#[test]
fn both_encodings_of_an_object_say_the_same() {
    let json = recorded(Encoding::Json);
    let mut compared = std::collections::BTreeSet::new();
    for (resource, protobuf) in recorded(Encoding::Protobuf) {
        let version = protobuf.resource_version();
        let Some((_, json)) = json.iter().find(|(other, json)| {
            *other == resource && json.uid() == protobuf.uid() && json.resource_version() == version
        }) else {
            continue;
        };
        assert_eq!(json.key(), protobuf.key());
        assert!(json.labels().eq(protobuf.labels()));
        for (index, label) in resource.fields.labels().enumerate() {
            assert_eq!(
                json.field(index),
                protobuf.field(index),
                "{label} of {}",
                protobuf.key()
            );
        }
        compared.insert(resource.resource.to_string());
    }
    for resource in ["pods", "nodes", "events", "secrets", "leases"] {
        assert!(
            compared.contains(resource),
            "{resource} were recorded in both encodings"
        );
    }
    assert!(
        compared.len() > 15,
        "objects were recorded in both encodings"
    );
}

#[test]
fn an_event_leaves_as_it_came() {
    let mut errors = 0;
    for recording in data::<Recording>(include_str!("data/events.json")) {
        let resource = recording.resource();
        for (encoding, body) in recording.bodies() {
            let mut splitter = FrameSplitter::new(encoding, body.len());
            splitter.push(body.clone());
            let frame = splitter.next_frame().unwrap().unwrap();
            assert_eq!(splitter.next_frame().unwrap(), None);
            splitter.finish().unwrap();
            match decode_event(encoding, &resource, &frame).unwrap() {
                WatchEvent::Object { event_type, object } => {
                    assert_eq!(event_frame(event_type, &object), body);
                    let back = ResourceVersion::new(1);
                    let there = object.with_resource_version(back);
                    assert_eq!(there.resource_version(), back);
                    assert_eq!(
                        there.with_resource_version(object.resource_version()),
                        object
                    );
                }
                WatchEvent::Error(status) => {
                    assert!((400..600).contains(&status.code), "{status:?}");
                    assert!(
                        !status.message.is_empty() && !status.reason.is_empty(),
                        "{status:?}"
                    );
                    errors += 1;
                }
                WatchEvent::Bookmark { .. } => panic!("no bookmark was recorded here"),
            }
        }
    }
    assert!(errors > 0, "ERROR events were recorded");
}

#[test]
fn an_object_that_leaves_the_view_carries_the_newer_resource_version_and_nothing_else() {
    for recording in objects().iter().filter(|recording| !recording.list) {
        let resource = recording.resource();
        for (encoding, body) in recording.bodies() {
            let object = Object::decode(encoding, &resource, full(encoding, &body)).unwrap();
            for digits in [1, 7, 1_234_567_890_123, u64::MAX] {
                let version = ResourceVersion::new(digits);
                let patched = object.with_resource_version(version);
                let decoded = Object::decode(encoding, &resource, patched.bytes()).unwrap();
                assert_eq!(decoded, patched);
                assert_eq!(patched.resource_version(), version);
                assert_eq!((patched.key(), patched.uid()), (object.key(), object.uid()));
                assert_eq!(
                    patched.with_resource_version(object.resource_version()),
                    object
                );
            }
        }
    }
}

#[test]
fn bookmarks_take_the_shape_of_the_recorded_ones() {
    for recording in data::<Recording>(include_str!("data/bookmarks.json")) {
        let resource = recording.resource();
        for (encoding, body) in recording.bodies() {
            let mut splitter = FrameSplitter::new(encoding, body.len());
            splitter.push(body.clone());
            let frame = splitter.next_frame().unwrap().unwrap();
            let (resource_version, end, template) = bookmark(encoding, &resource, &frame);
            assert_eq!(template.frame(resource_version, end), body);

            // A bookmark of the other sort teaches the same shape.
            let other = template.frame(resource_version, !end);
            let mut splitter = FrameSplitter::new(encoding, other.len());
            splitter.push(other.clone());
            let frame = splitter.next_frame().unwrap().unwrap();
            let (again, other_end, learnt) = bookmark(encoding, &resource, &frame);
            assert_eq!((again, other_end), (resource_version, !end));
            assert_eq!(learnt.frame(resource_version, end), body);
        }
    }
}

fn bookmark(
    encoding: Encoding,
    resource: &Resource,
    frame: &[u8],
) -> (ResourceVersion, bool, BookmarkTemplate) {
    match decode_event(encoding, resource, frame).expect("a recorded or rebuilt bookmark") {
        WatchEvent::Bookmark {
            resource_version,
            initial_events_end,
            template,
        } => (resource_version, initial_events_end, template),
        WatchEvent::Object { .. } | WatchEvent::Error(_) => panic!("not a bookmark"),
    }
}

#[test]
fn selectors_are_refused_with_the_text_of_the_apiserver() {
    #[derive(Deserialize)]
    struct Case {
        #[serde(flatten)]
        of: Of,
        label: Option<String>,
        field: Option<String>,
        message: Option<String>,
    }
    let mut refused = 0;
    for Case {
        of,
        label,
        field,
        message,
    } in data(include_str!("data/selectors.json"))
    {
        let fields = of.fields();
        let mut answer = None;
        if let Some(text) = &label {
            answer = LabelSelector::parse(text).err();
        }
        if let Some(text) = &field {
            answer = match FieldSelector::parse(text) {
                Err(error) => Some(error),
                Ok(selector) => selector.bind(&fields).err().map(|unsupported| {
                    assert!(fields.is_complete(), "{}", of.resource);
                    SelectorError::Invalid(fields.unsupported_text(&unsupported.label))
                }),
            };
        }
        refused += usize::from(message.is_some());
        let answer = answer.map(|error| error.to_string());
        assert_eq!(answer, message, "{} {label:?} {field:?}", of.resource);
    }
    assert!(refused > 60, "refusals were recorded");
}

#[test]
fn selectors_choose_what_the_apiserver_chose() {
    #[derive(Deserialize)]
    struct Scenario {
        #[serde(flatten)]
        of: Of,
        kind: String,
        objects: Vec<String>,
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        kind: String,
        selector: String,
        selected: Vec<String>,
    }
    for Scenario {
        of,
        kind,
        objects,
        cases,
    } in data(include_str!("data/matches.json"))
    {
        let resource = of.resource(&kind);
        let mut objects: Vec<Object> = objects
            .iter()
            .map(|json| Object::decode(Encoding::Json, &resource, json.as_bytes()).unwrap())
            .collect();
        objects.sort_by(|a, b| a.key().cmp(b.key()));
        for Case {
            kind,
            selector,
            selected,
        } in cases
        {
            let chosen: Vec<&str> = if kind == "label" {
                let parsed = LabelSelector::parse(&selector).unwrap();
                objects
                    .iter()
                    .filter(|object| parsed.matches(object))
                    .map(Object::name)
                    .collect()
            } else {
                let parsed = FieldSelector::parse(&selector)
                    .unwrap()
                    .bind(&resource.fields);
                let parsed = parsed.unwrap();
                objects
                    .iter()
                    .filter(|object| parsed.matches(object))
                    .map(Object::name)
                    .collect()
            };
            assert_eq!(chosen, selected, "{} {selector}", of.resource);
        }
    }
}

#[test]
fn an_error_event_is_the_recorded_vector() {
    let json = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 5 (1000)","reason":"Expired","code":410}"#;
    let frame = watershed_cache::encoding::error_frame(Encoding::Json, json);
    assert_eq!(frame.len(), 172);
    let protobuf = unhex(
        "6b3873000a0c0a0276311206537461747573\
         12410a060a0012001a0012074661696c7572651a22746f6f206f6c64207265736f757263652076657273696f6e3a2035202831303030292207457870697265643\
         09a031a002200",
    );
    let framed = watershed_cache::encoding::error_frame(Encoding::Protobuf, &protobuf);
    assert_eq!(framed.len(), 104);
    assert_eq!(framed[..15], unhex("000000640a054552524f52125b0a59")[..]);

    let pods = Of {
        group: String::new(),
        version: "v1".into(),
        resource: "pods".into(),
    };
    for (encoding, frame) in [
        (Encoding::Json, frame),
        (Encoding::Protobuf, framed.slice(4..)),
    ] {
        let event = decode_event(encoding, &pods.resource("Pod"), &frame).unwrap();
        let WatchEvent::Error(status) = event else {
            panic!("not an error: {event:?}")
        };
        assert_eq!(
            (status.code, &*status.reason, status.retry_after),
            (410, "Expired", None)
        );
        assert_eq!(status.message, "too old resource version: 5 (1000)");
    }
}

#[test]
fn an_unlearnt_bookmark_has_kind_and_metadata() {
    let of = Of {
        group: String::new(),
        version: "v1".into(),
        resource: "configmaps".into(),
    };
    let resource = of.resource("ConfigMap");
    let version = ResourceVersion::new(12746);
    let json = BookmarkTemplate::empty(Encoding::Json, &resource).frame(version, true);
    assert_eq!(
        json,
        "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":\
         {\"resourceVersion\":\"12746\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n"
    );
    let protobuf = BookmarkTemplate::empty(Encoding::Protobuf, &resource).frame(version, true);
    assert_eq!(
        protobuf,
        unhex(
            "000000630a08424f4f4b4d41524b12570a556b3873000a0f0a0276311209436f6e6669674d6170\
             123a0a380a0012001a0022002a0032053132373436380042006221\
             0a196b38732e696f2f696e697469616c2d6576656e74732d656e641204747275651a002200"
        )
    );
    let of = Of {
        group: "a.example.com".into(),
        version: "v1".into(),
        resource: "foos".into(),
    };
    let json = BookmarkTemplate::empty(Encoding::Json, &of.resource("Foo")).frame(version, true);
    assert_eq!(
        json,
        "{\"type\":\"BOOKMARK\",\"object\":{\"apiVersion\":\"a.example.com/v1\",\"kind\":\"Foo\",\"metadata\":\
         {\"annotations\":{\"k8s.io/initial-events-end\":\"true\"},\"resourceVersion\":\"12746\"}}}\n"
    );
}

#[test]
fn an_empty_protobuf_list_is_the_recorded_vector() {
    let of = Of {
        group: String::new(),
        version: "v1".into(),
        resource: "configmaps".into(),
    };
    let resource = of.resource("ConfigMap");
    let meta = ListMeta {
        resource_version: ResourceVersion::new(2983),
        continue_token: None,
        remaining: None,
    };
    let mut body = BytesMut::from(&*list_head(Encoding::Protobuf, &resource, &meta, 0));
    body.extend_from_slice(&list_tail(Encoding::Protobuf, &resource, &meta));
    let vector = "6b3873000a130a027631120d436f6e6669674d61704c697374120c0a0a0a0012\
                  04323938331a001a002200";
    assert_eq!(body, unhex(vector));
    assert_eq!(EventType::Added.as_str(), "ADDED");
}
