//! Objects in both encodings, from the definitions in `k8s.io/api` (`types.go`, `generated.proto`).
//!
//! JSON is a [`Value`]; [`json`] writes it with its keys in any order. Protobuf is written field by
//! field, with numbers that this file and nothing else of the tests knows, and with fields in
//! between that mean nothing here.

mod pod;
mod policy;
mod volume;

use serde_json::{Value, json};

use crate::objects::Bound;
pub(crate) use pod::pod;
pub(crate) use policy::{binding, role};
pub(crate) use volume::volume;

/// An object in both encodings.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) json: Value,
    pub(crate) protobuf: Vec<u8>,
}

impl Written {
    fn new(kind: &str, version: &str, json: Value, message: Message) -> Self {
        let mut json = json;
        json["kind"] = json!(kind);
        json["apiVersion"] = json!(version);
        let type_meta = Message::new().text(1, version).text(2, kind);
        let unknown = Message::new().message(1, type_meta).message(2, message);
        let unknown = unknown.text(3, "").text(4, "");
        let mut protobuf = b"k8s\0".to_vec();
        protobuf.extend(unknown.0);
        Self { json, protobuf }
    }
}

/// JSON with keys in an order that depends on the seed, sometimes with escapes.
pub(crate) fn json(value: &Value, seed: &mut u64) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| json(item, seed)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            for at in (1..members.len()).rev() {
                let with = next(seed) as usize % (at + 1);
                members.swap(at, with);
            }
            let members: Vec<String> = members
                .into_iter()
                .map(|(key, value)| format!("{}: {}", text(key, seed), json(value, seed)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::String(value) => text(value, seed),
        other => other.to_string(),
    }
}

fn text(value: &str, seed: &mut u64) -> String {
    if !next(seed).is_multiple_of(4) {
        return json!(value).to_string();
    }
    let escaped = value.chars().map(|c| format!("\\u{:04x}", u32::from(c)));
    format!("\"{}\"", escaped.collect::<String>())
}

fn next(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// A protobuf message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn text(self, number: u32, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    pub(crate) fn message(self, number: u32, message: Self) -> Self {
        self.bytes(number, &message.0)
    }

    fn texts<'a>(self, number: u32, texts: impl IntoIterator<Item = &'a String>) -> Self {
        let texts = texts.into_iter();
        texts.fold(self, |message, text| message.text(number, text))
    }

    fn bytes(mut self, number: u32, bytes: &[u8]) -> Self {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    /// Fields of every wire type, with numbers nothing has.
    fn noise(mut self) -> Self {
        self.varint(1001 << 3);
        self.varint(u64::MAX);
        self.varint(1002 << 3 | 1);
        self.0.extend([0xff; 8]);
        self.varint(1003 << 3 | 5);
        self.0.extend([0xff; 4]);
        self.text(1004, "secretName")
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

fn named(name: &str) -> Message {
    Message::new().text(1, name)
}

/// A message that begins with a `LocalObjectReference`.
fn local(name: &str) -> Message {
    Message::new().message(1, named(name))
}

fn metadata(namespace: &str, name: &str, annotations: &[(&str, &str)]) -> (Value, Message) {
    let mut json = json!({"name": name, "uid": "u-1", "labels": {"name": "label"}});
    if !namespace.is_empty() {
        json["namespace"] = json!(namespace);
    }
    let mut message = Message::new().text(1, name).text(2, "").text(3, namespace);
    let label = Message::new().text(1, "name").text(2, "label");
    message = message.message(11, label);
    for (key, value) in annotations {
        json["annotations"][*key] = json!(value);
        message = message.message(12, Message::new().text(1, key).text(2, value));
    }
    (json, message.noise())
}

pub(crate) fn attachment(bound: &Bound) -> Written {
    self::bound("VolumeAttachment", "storage.k8s.io/v1", 3, bound)
}

pub(crate) fn slice(bound: &Bound) -> Written {
    self::bound("ResourceSlice", "resource.k8s.io/v1", 3, bound)
}

pub(crate) fn certificate_request(bound: &Bound) -> Written {
    self::bound(
        "PodCertificateRequest",
        "certificates.k8s.io/v1beta1",
        6,
        bound,
    )
}

fn bound(kind: &str, version: &str, number: u32, bound: &Bound) -> Written {
    let (metadata_json, metadata) = metadata(&bound.namespace, &bound.name, &[]);
    let mut spec = json!({"driver": "d"});
    let mut message = Message::new().text(1, "d").noise();
    if !bound.node.is_empty() {
        spec["nodeName"] = json!(bound.node);
        message = message.text(number, &bound.node);
    }
    let json = json!({"metadata": metadata_json, "spec": spec});
    let message = Message::new().message(1, metadata).message(2, message);
    Written::new(kind, version, json, message)
}
