use serde_json::Value;

use super::*;
use crate::fields::FieldSet;
use crate::resource::Resource;

/// Recorded from kube-apiserver 1.36, in both encodings.
const OBJECTS: &str = include_str!("../../../tests/data/objects.json");

fn nodes() -> Resource {
    Resource {
        group: "".into(),
        version: "v1".into(),
        resource: "nodes".into(),
        kind: "Node".into(),
        namespaced: false,
        custom: false,
        fields: FieldSet::builtin("", "v1", "nodes").unwrap(),
    }
}

fn recorded(encoding: Encoding) -> Vec<u8> {
    let member = match encoding {
        Encoding::Json => "json",
        Encoding::Protobuf => "protobuf",
    };
    let objects: Vec<Value> = serde_json::from_str(OBJECTS).unwrap();
    let is_it = |it: &&Value| it["kind"] == "Node" && it["list"] == false && it[member].is_string();
    let text = objects.iter().find(is_it).unwrap()[member]
        .as_str()
        .unwrap();
    match encoding {
        Encoding::Json => text.trim_end().as_bytes().to_vec(),
        Encoding::Protobuf => (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect(),
    }
}

fn node(encoding: Encoding, bytes: &[u8]) -> Object {
    Object::decode(encoding, &nodes(), bytes).unwrap()
}

/// Every occurrence of one text replaced by another; there has to be one.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|it| it == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    assert!(!out.is_empty());
    out.extend_from_slice(rest);
    out
}

/// The Node after a heartbeat, as an apiserver writes it.
fn beaten(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
    // Seconds as they stand in JSON and in protobuf, there with no nanoseconds after them.
    let swaps = [
        (
            "lastHeartbeatTime",
            3,
            "2024-05-06T07:08:09Z",
            1_714_979_289,
        ),
        ("time", 4, "2026-11-21T17:51:42Z", 1_795_283_502),
    ];
    let mut out = replaced(bytes, b"20925", b"20999");
    for (member, number, text, seconds) in swaps {
        let later = text.replace(":0", ":3").replace(":5", ":4");
        let [from, to] = match encoding {
            Encoding::Json => [text, &later].map(|it| format!("\"{member}\":\"{it}\"").into()),
            Encoding::Protobuf => [seconds, seconds + 300].map(|seconds| {
                let mut time = vec![8];
                protobuf::push_varint(&mut time, seconds);
                time.extend_from_slice(&[16, 0]);
                let mut field = Vec::new();
                protobuf::push_bytes(&mut field, number, &time);
                field
            }),
        };
        out = replaced(&out, &from, &to);
    }
    out
}

#[test]
fn a_heartbeat_is_one_in_both_encodings_and_in_both_directions() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let before = recorded(encoding);
        let after = beaten(encoding, &before);
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!((10..40).contains(&changed), "{changed}");
        let [before, after] = [before, after].map(|bytes| node(encoding, &bytes));
        assert!(is_heartbeat(&before, &after) && is_heartbeat(&after, &before));
    }
}

fn rv(version: u64) -> crate::ResourceVersion {
    crate::ResourceVersion::new(version)
}

#[test]
fn a_longer_version_is_a_heartbeat_in_json() {
    let before = node(Encoding::Json, &recorded(Encoding::Json));
    assert!(is_heartbeat(
        &before,
        &before.with_resource_version(rv(100_000))
    ));
}

/// Whatever byte differs besides: it is no heartbeat, on whichever side it stands.
#[test]
fn a_byte_anywhere_else_is_a_change() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let bytes = recorded(encoding);
        let before = node(encoding, &bytes);
        let after = node(encoding, &beaten(encoding, &bytes));
        let mut spans = match encoding {
            Encoding::Json => in_json(&bytes).unwrap(),
            Encoding::Protobuf => in_protobuf(&bytes).unwrap(),
        };
        assert_eq!(spans.len(), 6, "four conditions, two managers");
        spans.push(before.resource_version_at());
        let mut tried = 0;
        let near = |at: usize| {
            let mut around = spans.iter().map(|span| span.start - 2..span.end + 2);
            around.any(|span| span.contains(&at))
        };
        let all = 0..bytes.len();
        for at in all.filter(|at| at % 8 == 3 || near(*at)) {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let Ok(other) = Object::decode(encoding, &nodes(), &other) else {
                continue;
            };
            tried += 1;
            let is_inside = spans.iter().any(|span| span.contains(&at));
            assert_eq!(is_heartbeat(&other, &after), is_inside, "byte {at}");
            assert_eq!(is_heartbeat(&after, &other), is_inside, "byte {at}");
        }
        assert!(tried > bytes.len() / 16, "{tried}");
    }
}

#[test]
fn what_looks_like_a_heartbeat_elsewhere_is_a_change() {
    let bytes = recorded(Encoding::Json);
    let text = String::from_utf8(bytes).unwrap();
    let time = "2024-05-06T07:08:09Z";
    for member in [
        format!("\"metadata\":{{\"time\":\"{time}\","),
        format!("\"metadata\":{{\"annotations\":{{\"lastHeartbeatTime\":\"{time}\"}},"),
        format!("\"metadata\":{{\"conditions\":[{{\"lastHeartbeatTime\":\"{time}\"}}],"),
    ] {
        let before = text.replacen("\"metadata\":{", &member, 1);
        let after = before.replacen(time, "2024-05-06T07:13:10Z", 1);
        let [before, after] = [before, after].map(|it| node(Encoding::Json, it.as_bytes()));
        assert!(!is_heartbeat(&before, &after), "{member}");
    }
    for (from, to) in [
        (
            "\"lastHeartbeatTime\":\"2024-05-06T07:08:09Z\"",
            "\"lastHeartbeatTime\":null",
        ),
        (
            "\"lastTransitionTime\":\"2024-05-01T00",
            "\"lastTransitionTime\":\"2024-05-01T01",
        ),
        ("\"status\":\"True\"", "\"status\":\"Unknown\""),
    ] {
        let after = text.replacen(from, to, 1);
        let [before, after] = [&text, &after].map(|it| node(Encoding::Json, it.as_bytes()));
        assert!(
            !is_heartbeat(&before, &after) && !is_heartbeat(&after, &before),
            "{to}"
        );
    }
}
