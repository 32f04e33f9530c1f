//! The objects of the simulation and their bytes, as an apiserver writes them.
//!
//! Owns a writer for each form: built-in objects in JSON and in protobuf, and a custom resource. It
//! shares nothing with the cache, so that a mistake in one is a difference. Texts hold quotes,
//! braces and letters of several bytes, on which a scanner may stumble.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use watershed_cache::encoding::Encoding;
use watershed_cache::{FieldSet, Resource};

/// How a history is written, which also decides what is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Pods in JSON.
    Json,
    /// Pods in protobuf.
    Protobuf,
    /// A custom resource: sorted keys, whole items in lists, no field that events are indexed by.
    Custom,
}

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Thing {
    pub(crate) namespace: &'static str,
    pub(crate) name: String,
    pub(crate) uid: u64,
    pub(crate) node: &'static str,
    pub(crate) phase: &'static str,
    pub(crate) labels: BTreeMap<&'static str, &'static str>,
    pub(crate) note: String,
    /// How often its kubelet said that it is alive, and nothing else; it says so in none at first.
    pub(crate) beats: u64,
    /// The version of the last write that was more than that.
    pub(crate) content: u64,
    pub(crate) version: u64,
    /// The object at its own version, written once.
    pub(crate) own: OnceLock<Vec<u8>>,
}

/// What a list says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta<'a> {
    pub(crate) version: u64,
    pub(crate) token: Option<&'a str>,
    pub(crate) remaining: Option<u64>,
}

/// What an upstream bookmark carries beyond kind and metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// What an encoder writes for an empty object.
    Zeroes,
    /// Nothing.
    Bare,
}

impl Form {
    pub(crate) const fn encoding(self) -> Encoding {
        match self {
            Self::Json | Self::Custom => Encoding::Json,
            Self::Protobuf => Encoding::Protobuf,
        }
    }

    pub(crate) fn resource(self) -> Arc<Resource> {
        let custom = self == Self::Custom;
        let fields = if custom {
            FieldSet::custom(true, [".spec.node", ".status.phase"])
        } else {
            FieldSet::builtin("", "v1", "pods").expect("pods are built in")
        };
        Arc::new(Resource {
            group: if custom { "example.com" } else { "" }.into(),
            version: "v1".into(),
            resource: if custom { "boats" } else { "pods" }.into(),
            kind: self.kind().into(),
            namespaced: true,
            custom,
            fields,
        })
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Json | Self::Protobuf => "Pod",
            Self::Custom => "Boat",
        }
    }

    /// A frame of a watch around an object.
    pub(crate) fn event(self, event_type: &str, object: &[u8]) -> Vec<u8> {
        match self {
            Self::Json | Self::Custom => {
                let mut frame = format!("{{\"type\":\"{event_type}\",\"object\":").into_bytes();
                frame.extend_from_slice(object);
                frame.extend_from_slice(b"}\n");
                frame
            }
            Self::Protobuf => {
                let raw = field(1, object);
                let event = [field(1, event_type.as_bytes()), field(2, &raw)].concat();
                let length = u32::try_from(event.len()).expect("small");
                [length.to_be_bytes().to_vec(), event].concat()
            }
        }
    }

    /// A bookmark frame; `end` is whether it ends the initial events.
    pub(crate) fn bookmark(self, version: u64, end: bool, shape: Shape) -> Vec<u8> {
        let kind = self.kind();
        let end_json = "\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}";
        let object = match self {
            Self::Json => {
                let end = if end {
                    format!(",{end_json}")
                } else {
                    String::new()
                };
                let rest = match shape {
                    Shape::Zeroes => r#","spec":{"containers":null},"status":{}"#,
                    Shape::Bare => "",
                };
                format!(
                    r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{{"resourceVersion":"{version}"{end}}}{rest}}}"#
                )
                .into_bytes()
            }
            Self::Custom => {
                let end = if end {
                    format!("{end_json},")
                } else {
                    String::new()
                };
                format!(
                    r#"{{"apiVersion":"example.com/v1","kind":"{kind}","metadata":{{{end}"resourceVersion":"{version}"}}}}"#
                )
                .into_bytes()
            }
            Self::Protobuf => {
                let mut meta = identity("", "", "");
                meta.extend(field(6, version.to_string().as_bytes()));
                meta.extend([0x38, 0, 0x42, 0]);
                if end {
                    meta.extend(entry(12, "k8s.io/initial-events-end", "true"));
                }
                let mut message = field(1, &meta);
                if shape == Shape::Zeroes {
                    message.extend(field(2, &[field(10, b""), field(5, b"")].concat()));
                    message.extend(field(3, &field(1, b"")));
                }
                envelope("v1", kind, &message)
            }
        };
        self.event("BOOKMARK", &object)
    }

    /// The Status of an error.
    pub(crate) fn status(self, code: u16, reason: &str) -> Vec<u8> {
        match self {
            Self::Json | Self::Custom => format!(
                r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"no","reason":"{reason}","code":{code}}}"#
            )
            .into_bytes(),
            Self::Protobuf => {
                let mut message = field(1, &field(1, b""));
                message.extend(field(2, b"Failure"));
                message.extend(field(3, b"no"));
                message.extend(field(4, reason.as_bytes()));
                message.push(6 << 3);
                varint(&mut message, code.into());
                envelope("v1", "Status", &message)
            }
        }
    }

    /// The body of a list.
    pub(crate) fn list<'a>(
        self,
        meta: Meta<'_>,
        things: impl Iterator<Item = &'a Arc<Thing>>,
    ) -> Vec<u8> {
        let Meta {
            version,
            token,
            remaining,
        } = meta;
        let kind = self.kind();
        let remaining_json = remaining
            .map(|count| format!(",\"remainingItemCount\":{count}"))
            .unwrap_or_default();
        match self {
            Self::Json => {
                let token = token
                    .map(|token| format!(",\"continue\":\"{token}\""))
                    .unwrap_or_default();
                let head = format!(
                    r#"{{"kind":"{kind}List","apiVersion":"v1","metadata":{{"resourceVersion":"{version}"{token}{remaining_json}}},"items":["#
                );
                let items: Vec<_> = things
                    .map(|thing| format!("{{{}", thing.json(thing.version)))
                    .collect();
                format!("{head}{}]}}\n", items.join(",")).into_bytes()
            }
            Self::Custom => {
                let items: Vec<_> = things.map(|thing| thing.custom(thing.version)).collect();
                let token = token.unwrap_or_default();
                format!(
                    "{{\"apiVersion\":\"example.com/v1\",\"items\":[{}],\"kind\":\"{kind}List\",\
                     \"metadata\":{{\"continue\":\"{token}\"{remaining_json},\
                     \"resourceVersion\":\"{version}\"}}}}\n",
                    items.join(",")
                )
                .into_bytes()
            }
            Self::Protobuf => {
                let mut list_meta = field(1, b"");
                list_meta.extend(field(2, version.to_string().as_bytes()));
                list_meta.extend(field(3, token.unwrap_or_default().as_bytes()));
                if let Some(count) = remaining {
                    list_meta.push(4 << 3);
                    varint(&mut list_meta, count);
                }
                let mut message = field(1, &list_meta);
                for thing in things {
                    message.extend(field(2, &thing.message(thing.version)));
                }
                envelope("v1", &format!("{kind}List"), &message)
            }
        }
    }

    /// Frames no apiserver sends.
    pub(crate) fn nonsense(self, which: usize) -> Vec<u8> {
        let json: [&[u8]; 6] = [
            b"{\"what\":0}\n",
            b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Node\",\"apiVersion\":\"v1\"}}\n",
            b"[1]\n",
            b"{\"type\":\"GROWN\",\"object\":{}}\n",
            b"<html>502 Bad Gateway</html>\n",
            b"{\"type\":\"DELETED\",\"object\":null}\n",
        ];
        let protobuf: [&[u8]; 6] = [
            &[0xff, 0xff, 0xff, 0xff, 0],
            &[0, 0, 0, 0],
            &[0, 0, 0, 2, 0x0a, 0x7f],
            &[0, 0, 0, 9, 0x0a, 5, b'G', b'R', b'O', b'W', b'N', 0x12, 0],
            b"<html>502 Bad Gateway</html>\n",
            &[0, 0, 0, 3, 0x0a, 1, b'X', 0x12],
        ];
        match self {
            Self::Json | Self::Custom => json[which % json.len()].to_vec(),
            Self::Protobuf => protobuf[which % protobuf.len()].to_vec(),
        }
    }
}

impl Thing {
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The object alone.
    pub(crate) fn own(&self, form: Form) -> &[u8] {
        self.own.get_or_init(|| self.object(form, self.version))
    }

    /// The object alone, as if it were at `version`.
    pub(crate) fn object(&self, form: Form, version: u64) -> Vec<u8> {
        match form {
            Form::Json => {
                let rest = self.json(version);
                format!("{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",{rest}").into_bytes()
            }
            Form::Custom => self.custom(version).into_bytes(),
            Form::Protobuf => envelope("v1", "Pod", &self.message(version)),
        }
    }

    /// A pod without what comes before its metadata.
    fn json(&self, version: u64) -> String {
        let Self {
            namespace,
            name,
            uid,
            note,
            ..
        } = self;
        let labels = match self.labels_json() {
            labels if labels.is_empty() => labels,
            labels => format!(",\"labels\":{{{labels}}}"),
        };
        let note = serde_json::Value::from(note.as_str());
        let node = if self.node.is_empty() {
            String::new()
        } else {
            format!(",\"nodeName\":\"{}\"", self.node)
        };
        let phase = if self.phase.is_empty() {
            String::new()
        } else {
            format!("\"phase\":\"{}\"", self.phase)
        };
        let [written, mut beaten] = self.beats_json();
        if !phase.is_empty() && !beaten.is_empty() {
            beaten.insert(0, ',');
        }
        format!(
            r#""metadata":{{"name":"{name}","namespace":"{namespace}","uid":"u-{uid}","resourceVersion":"{version}"{labels},"annotations":{{"note":{note}}}{written}}},"spec":{{"containers":[]{node}}},"status":{{{phase}{beaten}}}}}"#
        )
    }

    /// When it was last written, and when its kubelet last said that it is alive; nothing, if it
    /// never did.
    fn beats_json(&self) -> [String; 2] {
        let Some(time) = self.beaten_at() else {
            return Default::default();
        };
        [
            format!(r#","managedFields":[{{"manager":"kubelet","time":"{time}"}}]"#),
            format!(r#""conditions":[{{"type":"Ready","lastHeartbeatTime":"{time}"}}]"#),
        ]
    }

    fn beaten_at(&self) -> Option<String> {
        let (minute, second) = (self.beats / 60 % 60, self.beats % 60);
        (self.beats > 0).then(|| format!("2026-01-01T00:{minute:02}:{second:02}Z"))
    }

    fn labels_json(&self) -> String {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(key, value)| format!("\"{key}\":\"{value}\""))
            .collect();
        labels.join(",")
    }

    fn custom(&self, version: u64) -> String {
        let Self {
            namespace,
            name,
            uid,
            node,
            phase,
            ..
        } = self;
        let labels = self.labels_json();
        let note = serde_json::Value::from(self.note.as_str());
        let [mut written, mut beaten] = self.beats_json();
        if !beaten.is_empty() {
            written = format!("{},", &written[1..]);
            beaten.push(',');
        }
        format!(
            r#"{{"apiVersion":"example.com/v1","kind":"Boat","metadata":{{"annotations":{{"note":{note}}},"labels":{{{labels}}},{written}"name":"{name}","namespace":"{namespace}","resourceVersion":"{version}","uid":"u-{uid}"}},"spec":{{"node":"{node}"}},"status":{{{beaten}"phase":"{phase}"}}}}"#
        )
    }

    /// The protobuf message of a pod.
    fn message(&self, version: u64) -> Vec<u8> {
        let mut meta = identity(&self.name, self.namespace, &format!("u-{}", self.uid));
        meta.extend(field(6, version.to_string().as_bytes()));
        meta.extend([0x38, 0, 0x42, 0]);
        for (key, value) in &self.labels {
            meta.extend(entry(11, key, value));
        }
        meta.extend(entry(12, "note", &self.note));
        let spec = [field(5, b""), field(10, self.node.as_bytes())].concat();
        let mut status = field(1, self.phase.as_bytes());
        if self.beats > 0 {
            let time = [8, 0x80 | (self.beats & 0x7f) as u8, 1, 16, 0];
            meta.extend(field_17(&[field(1, b"kubelet"), field(4, &time)].concat()));
            status.extend(field(4, &[field(1, b"Ready"), field(3, &time)].concat()));
        }
        [field(1, &meta), field(2, &spec), field(3, &status)].concat()
    }
}

/// The first fields of ObjectMeta: name, generateName, namespace, selfLink, uid.
fn identity(name: &str, namespace: &str, uid: &str) -> Vec<u8> {
    let fields = [name, "", namespace, "", uid];
    (1..)
        .zip(fields)
        .flat_map(|(number, text)| field(number, text.as_bytes()))
        .collect()
}

fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    let unknown = [
        field(1, &meta),
        field(2, message),
        field(3, b""),
        field(4, b""),
    ];
    [b"k8s\0".to_vec(), unknown.concat()].concat()
}

fn entry(number: u8, key: &str, value: &str) -> Vec<u8> {
    let pair = [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
    field(number, &pair)
}

/// A length-delimited field whose number takes two bytes.
fn field_17(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x8a, 1];
    varint(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

/// A length-delimited field.
fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
