//! The codecs against every object a real apiserver was recorded to send.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

/// All recorded 2xx bodies and event frames, as text and as bytes.
struct Recorded {
    json: Vec<String>,
    protobuf: Vec<Vec<u8>>,
}

static RECORDED: LazyLock<Recorded> = LazyLock::new(read_recordings);

fn read_recordings() -> Recorded {
    let mut all = Recorded {
        json: Vec::new(),
        protobuf: Vec::new(),
    };
    for group in std::fs::read_dir(crate::golden::folder()).expect("the recordings") {
        let path = group.expect("a folder entry").path();
        for file in std::fs::read_dir(&path).into_iter().flatten() {
            let text = std::fs::read(file.expect("a file").path()).expect("readable");
            collect(&serde_json::from_slice(&text).expect("JSON"), &mut all);
        }
    }
    assert!(
        all.json.len() > 1000 && all.protobuf.len() > 200,
        "the recordings are there"
    );
    all
}

fn collect(value: &Value, all: &mut Recorded) {
    let Value::Object(map) = value else {
        value
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|value| collect(value, all));
        return;
    };
    for (key, value) in map {
        match (key.as_str(), value) {
            ("body_text" | "raw_text", Value::String(text)) => all.json.push(text.clone()),
            ("body_base64" | "raw_base64", Value::String(text)) => {
                all.protobuf.push(STANDARD.decode(text).expect("base64"));
            }
            _ => collect(value, all),
        }
    }
}

#[derive(serde::Deserialize)]
struct Event {
    object: Box<serde_json::value::RawValue>,
}

/// The object of a body or frame, with its exact text; none for indented bodies, custom resources
/// and what is no JSON.
fn object(text: &str) -> Option<(String, Value)> {
    let text = text.trim_end_matches('\n');
    let text = match serde_json::from_str::<Event>(text) {
        Ok(event) if text.starts_with("{\"type\":") => event.object.get().to_owned(),
        _ => text.to_owned(),
    };
    let value = serde_json::from_str(&text).ok()?;
    (text.starts_with("{\"kind\"") && !text.contains('\n')).then_some((text, value))
}

fn kind_of(object: &Value) -> (&str, &str) {
    let word = |name| object.get(name).and_then(Value::as_str).unwrap_or_default();
    (word("apiVersion"), word("kind"))
}

#[test]
fn recorded_json_survives_a_round_trip() {
    let schema = Schema::builtin();
    let (mut checked, mut failures) = (0, Vec::new());
    for (text, object) in RECORDED.json.iter().filter_map(|text| object(text)) {
        let (api_version, kind) = kind_of(&object);
        checked += 1;
        match schema
            .json(api_version, kind, &object)
            .map(String::from_utf8)
        {
            Ok(Ok(ours)) if ours == text => {}
            other => failures.push(format!("{kind}\n  {text}\n  {other:?}")),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {checked}: {:#?}",
        failures.len(),
        &failures[..failures.len().min(8)]
    );
    assert!(checked > 1000, "only {checked} objects were recognised");
}

/// The objects of a protobuf body or frame.
fn messages(body: &[u8]) -> Vec<(String, String, Vec<u8>)> {
    let body = match open_envelope(body) {
        Ok(_) => body,
        Err(_) => {
            let Some(at) = body.windows(4).position(|window| window == b"k8s\0") else {
                return Vec::new();
            };
            &body[at..]
        }
    };
    let Ok(envelope) = open_envelope(body) else {
        return Vec::new();
    };
    vec![(
        envelope.api_version.to_owned(),
        envelope.kind.to_owned(),
        envelope.raw.to_vec(),
    )]
}

#[test]
fn recorded_protobuf_survives_a_round_trip() {
    let schema = Schema::builtin();
    let (mut checked, mut failures) = (0, Vec::new());
    for body in &RECORDED.protobuf {
        for (api_version, kind, raw) in messages(body) {
            checked += 1;
            let value = schema.from_protobuf(&api_version, &kind, &raw);
            let again = value
                .clone()
                .and_then(|value| schema.protobuf(&api_version, &kind, &value));
            if again.as_ref() != Ok(&raw) {
                failures.push(format!("{kind}\n {raw:02x?}\n {again:02x?}\n {value:?}"));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {checked}: {}",
        failures.len(),
        failures[..failures.len().min(4)].join("\n")
    );
    assert!(checked > 200, "only {checked} objects were recognised");
}

#[test]
fn json_becomes_the_protobuf_recorded_of_the_same_object() {
    let schema = Schema::builtin();
    let identity = |object: &Value| {
        let word = |name: &str| {
            object["metadata"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (
            kind_of(object).1.to_owned(),
            word("uid"),
            word("resourceVersion"),
        )
    };
    // The answer to a DELETE can have the object's last version and yet miss its finalizers.
    let mut by_identity: HashMap<_, Vec<_>> = HashMap::new();
    for (text, object) in RECORDED.json.iter().filter_map(|text| object(text)) {
        if object["metadata"]["uid"].is_string() {
            by_identity
                .entry(identity(&object))
                .or_default()
                .push((text, object));
        }
    }
    let mut kinds = BTreeSet::new();
    for (api_version, kind, raw) in RECORDED.protobuf.iter().flat_map(|body| messages(body)) {
        let decoded = schema
            .from_protobuf(&api_version, &kind, &raw)
            .expect("recorded");
        let Some(candidates) = by_identity.get(&identity(&decoded)) else {
            continue;
        };
        let json = schema.json(&api_version, &kind, &decoded).expect("decoded");
        let json = String::from_utf8(json).expect("UTF-8");
        let same = candidates.iter().find(|(text, _)| *text == json);
        let (_, object) = same.unwrap_or_else(|| panic!("{json}\n{candidates:?}"));
        assert_eq!(
            schema.protobuf(&api_version, &kind, object),
            Ok(raw),
            "{json}"
        );
        kinds.insert(kind);
    }
    assert!(kinds.len() > 10, "only {kinds:?}");
}

#[test]
fn a_watch_frame_has_the_recorded_bytes() {
    for body in &RECORDED.protobuf {
        let Some(rest) = body.get(4..).filter(|_| body[0] == 0) else {
            continue;
        };
        let at = rest
            .windows(4)
            .position(|window| window == b"k8s\0")
            .expect("an object");
        let event_type = std::str::from_utf8(&rest[2..2 + usize::from(rest[1])]).expect("a type");
        assert_eq!(watch_event_protobuf(event_type, &rest[at..]), *body);
    }
}

#[test]
fn an_envelope_opens_to_what_was_put_in() {
    for body in RECORDED
        .protobuf
        .iter()
        .filter(|body| body.starts_with(b"k8s\0"))
    {
        let opened = open_envelope(body).expect("recorded");
        assert_eq!(&envelope(opened.api_version, opened.kind, opened.raw), body);
    }
    assert!(open_envelope(b"k8s\0\x0a\xff").is_err());
    assert!(open_envelope(b"{}").is_err());
}

#[test]
fn truncated_messages_are_errors_not_panics() {
    let schema = Schema::builtin();
    for body in &RECORDED.protobuf {
        for (api_version, kind, raw) in messages(body) {
            for length in (0..raw.len()).step_by(7) {
                let _ = schema.from_protobuf(&api_version, &kind, &raw[..length]);
            }
        }
    }
    let endless = [0xff; 11];
    assert!(schema.from_protobuf("v1", "Pod", &endless).is_err());
}

#[test]
fn wrong_types_are_named_with_their_path() {
    let pod = json!({"spec": {"containers": [{"name": 7}]}});
    let error = Schema::builtin()
        .json("v1", "Pod", &pod)
        .expect_err("a name is a string");
    assert_eq!(error.to_string(), "spec.containers.name: expected a string");
    let error = Schema::builtin()
        .protobuf("v1", "Nonsense", &pod)
        .expect_err("no such kind");
    assert_eq!(error.to_string(), "no kind \"Nonsense\" in \"v1\"");
}

#[test]
fn storage_forgets_empty_lists_and_unknown_fields() {
    let slice = json!({
        "metadata": {"name": "x", "labels": {}},
        "addressType": "IPv4",
        "endpoints": [],
        "nonsense": 1,
    });
    let schema = Schema::builtin();
    let stored = schema
        .stored("discovery.k8s.io/v1", "EndpointSlice", &slice)
        .expect("valid");
    let json = schema
        .json("discovery.k8s.io/v1", "EndpointSlice", &stored)
        .expect("valid");
    assert_eq!(
        String::from_utf8(json).expect("UTF-8"),
        "{\"kind\":\"EndpointSlice\",\"apiVersion\":\"discovery.k8s.io/v1\",\
         \"metadata\":{\"name\":\"x\"},\
         \"addressType\":\"IPv4\",\"endpoints\":null,\"ports\":null}"
    );
}

#[test]
fn managed_field_keys_sort_numbers_as_numbers() {
    let sets = json!({"metadata": {"managedFields": [{"fieldsV1": {
        "k:{\"containerPort\":443,\"protocol\":\"TCP\"}": {},
        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {},
        "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {}}}]}});
    let json = Schema::builtin()
        .json("v1", "ConfigMap", &sets)
        .expect("valid");
    let json = String::from_utf8(json).expect("UTF-8");
    let at = |text| json.find(text).expect("present");
    assert!(
        at(":80,") < at(":443,") && at(":443,") < at(":8080,"),
        "{json}"
    );
}

#[test]
fn an_empty_object_prints_its_required_fields() {
    let template = "\"template\":{\"metadata\":{},\"spec\":{\"containers\":null}}";
    let daemon_set = format!(
        ",\"spec\":{{\"selector\":null,{template},\"updateStrategy\":{{}}}},\"status\":\
         {{\"currentNumberScheduled\":0,\"numberMisscheduled\":0,\"desiredNumberScheduled\":0,\
         \"numberReady\":0}}"
    );
    let replica_set = format!(
        ",\"spec\":{{\"replicas\":0,\"selector\":null,{template}}},\"status\":{{\"replicas\":0}}"
    );
    for (api_version, kind, rest) in [
        ("v1", "ConfigMap", ""),
        ("v1", "Endpoints", ""),
        ("v1", "PersistentVolume", ",\"spec\":{},\"status\":{}"),
        (
            "v1",
            "PersistentVolumeClaim",
            ",\"spec\":{\"resources\":{}},\"status\":{}",
        ),
        (
            "v1",
            "Service",
            ",\"spec\":{},\"status\":{\"loadBalancer\":{}}",
        ),
        ("apps/v1", "DaemonSet", daemon_set.as_str()),
        ("apps/v1", "ReplicaSet", replica_set.as_str()),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            ",\"spec\":{\"podSelector\":{}}",
        ),
        (
            "networking.k8s.io/v1",
            "ServiceCIDR",
            ",\"spec\":{},\"status\":{}",
        ),
        ("networking.k8s.io/v1", "IPAddress", ",\"spec\":{}"),
        ("node.k8s.io/v1", "RuntimeClass", ",\"handler\":\"\""),
        (
            "storage.k8s.io/v1",
            "CSINode",
            ",\"spec\":{\"drivers\":null}",
        ),
        ("storage.k8s.io/v1", "StorageClass", ",\"provisioner\":\"\""),
    ] {
        let schema = Schema::builtin();
        let empty = schema.empty(api_version, kind).expect("a built-in kind");
        let json = schema.json(api_version, kind, &empty).expect("valid");
        let expected = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{}}{rest}}}"
        );
        assert_eq!(String::from_utf8(json).expect("UTF-8"), expected);
    }
}
