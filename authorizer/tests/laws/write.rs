//! Objects in both encodings, from the definitions in `k8s.io/api` (`types.go`, `generated.proto`).
//!
//! JSON is a [`Value`]; [`json`] writes it with its keys in any order. Protobuf is written field by
//! field, with numbers that this file and nothing else of the tests knows, and with fields in
//! between that mean nothing here.

use serde_json::{Map, Value, json};

use crate::objects::{
    Binding, Bound, Container, CsiSecret, Made, Place, Pod, Role, Target, Volume, VolumePlace,
};

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

/// What becomes a part of a pod: JSON to be merged, and the message with its number.
struct Part {
    at: &'static str,
    json: Value,
    number: u32,
    message: Message,
}

pub(crate) fn pod(pod: &Pod) -> Written {
    let mut annotations = vec![("a.b/c", "kubernetes.io/config.mirror")];
    if pod.mirror {
        annotations.push(("kubernetes.io/config.mirror", ""));
    }
    let (metadata_json, metadata) = metadata(&pod.namespace, &pod.name, &annotations);
    let mut spec = Map::from_iter([("restartPolicy".to_owned(), json!("Always"))]);
    let mut status = json!({"phase": "Running", "podIP": null});
    let mut spec_message = Message::new().text(3, "Always").text(10, &pod.node).noise();
    let mut status_message = Message::new().text(1, "Running").noise();
    if !pod.node.is_empty() {
        spec.insert("nodeName".to_owned(), json!(pod.node));
    }
    for (at, (place, name)) in pod.mentions.iter().enumerate() {
        match place {
            Place::ServiceAccount => {
                spec.insert("serviceAccountName".to_owned(), json!(name));
                spec_message = spec_message.text(8, name);
            }
            Place::OldServiceAccount => {
                spec.insert("serviceAccount".to_owned(), json!(name));
                spec_message = spec_message.text(9, name);
            }
            Place::ExtendedResourceClaim => {
                let json = json!({"requestMappings": [], "resourceClaimName": name});
                status["extendedResourceClaimStatus"] = json;
                let mapping = Message::new().text(1, "c").text(2, "r").text(3, "q");
                let message = Message::new().message(1, mapping).text(2, name);
                status_message = status_message.message(18, message);
            }
            Place::FromTemplate(made) => {
                let json = json!({"name": name, "resourceClaimTemplateName": "template"});
                push(&mut spec, "resourceClaims", json);
                let message = named(name).text(4, "template");
                spec_message = spec_message.message(39, message);
                if let Some((json, message)) = claim_status(*made, name) {
                    let status = status.as_object_mut().expect("an object");
                    push(status, "resourceClaimStatuses", json);
                    status_message = status_message.message(15, message);
                }
            }
            other => {
                let part = part(*other, at, name);
                push(&mut spec, part.at, part.json);
                spec_message = spec_message.message(part.number, part.message);
            }
        }
    }
    let json = json!({"metadata": metadata_json, "spec": spec, "status": status});
    let message = Message::new()
        .message(1, metadata)
        .message(2, spec_message)
        .message(3, status_message);
    Written::new("Pod", "v1", json, message)
}

fn push(object: &mut Map<String, Value>, key: &str, value: Value) {
    let list = object.entry(key).or_insert_with(|| json!([]));
    list.as_array_mut().expect("an array").push(value);
}

fn claim_status(made: Made, name: &str) -> Option<(Value, Message)> {
    match made {
        Made::NotYet => None,
        Made::NotNeeded => Some((
            json!({"name": name, "resourceClaimName": null}),
            named(name),
        )),
        Made::Object => {
            let object = format!("{name}-made");
            let json = json!({"name": name, "resourceClaimName": object});
            Some((json, named(name).text(2, &object)))
        }
    }
}

/// An entry of one of the lists of a spec.
fn part(place: Place, at: usize, name: &str) -> Part {
    match place {
        Place::ImagePullSecret => Part {
            at: "imagePullSecrets",
            json: json!({"name": name}),
            number: 15,
            message: named(name),
        },
        Place::ResourceClaim => Part {
            at: "resourceClaims",
            json: json!({"name": "by-name", "resourceClaimName": name}),
            number: 39,
            message: named("by-name").text(3, name),
        },
        Place::Env(container, target) => {
            let (key, number) = match target {
                Target::Secret => ("secretKeyRef", 4),
                Target::ConfigMap => ("configMapKeyRef", 3),
            };
            let source = json!({key: {"name": name, "key": "k", "optional": true}});
            let json = json!({"name": "VAR", "valueFrom": source});
            let selector = local(name).text(2, "k").noise();
            let env = named("VAR").message(3, Message::new().message(number, selector));
            in_container(container, ("env", json), (7, env))
        }
        Place::EnvFrom(container, target) => {
            let (key, number) = match target {
                Target::Secret => ("secretRef", 3),
                Target::ConfigMap => ("configMapRef", 2),
            };
            let json = json!({"prefix": "P_", key: {"name": name}});
            let source = Message::new().text(1, "P_").message(number, local(name));
            in_container(container, ("envFrom", json), (19, source))
        }
        Place::ServiceAccount
        | Place::OldServiceAccount
        | Place::ExtendedResourceClaim
        | Place::FromTemplate(_) => unreachable!("not in a list of a spec"),
        volume => in_volume(volume, at, name),
    }
}

fn in_container(container: Container, json: (&str, Value), message: (u32, Message)) -> Part {
    let json = json!({"name": "c", "image": "i", json.0: [json.1]});
    let common = named("c")
        .text(2, "i")
        .message(message.0, message.1)
        .noise();
    match container {
        Container::Init => Part {
            at: "initContainers",
            json,
            number: 20,
            message: common,
        },
        Container::Regular => Part {
            at: "containers",
            json,
            number: 2,
            message: common,
        },
        Container::Ephemeral => {
            let mut json = json;
            json["targetContainerName"] = json!("secret");
            let message = Message::new().message(1, common).text(2, "secret");
            Part {
                at: "ephemeralContainers",
                json,
                number: 34,
                message,
            }
        }
    }
}

fn in_volume(place: Place, at: usize, name: &str) -> Part {
    let by_reference = json!({"secretRef": {"name": name}, "fsType": "ext4"});
    let reference = |number| Message::new().message(number, named(name)).noise();
    let (key, source, number, message) = match place {
        Place::Volume(Target::Secret) => (
            "secret",
            json!({"secretName": name, "items": [{"key": "k", "path": "name"}]}),
            6,
            named(name),
        ),
        Place::Volume(Target::ConfigMap) => (
            "configMap",
            json!({"name": name, "defaultMode": 420}),
            19,
            local(name).noise(),
        ),
        Place::Projected(target) => {
            let (key, number) = match target {
                Target::Secret => ("secret", 1),
                Target::ConfigMap => ("configMap", 3),
            };
            let json =
                json!({"sources": [{"serviceAccountToken": {"path": "t"}}, {key: {"name": name}}]});
            let token = Message::new().message(4, Message::new().text(3, "t"));
            let source = Message::new().message(number, local(name));
            let message = Message::new().message(1, token).message(1, source);
            ("projected", json, 26, message)
        }
        Place::AzureFile => (
            "azureFile",
            json!({"secretName": name, "shareName": "share"}),
            18,
            named(name).text(2, "share"),
        ),
        Place::CephFs => ("cephfs", by_reference, 14, reference(5)),
        Place::Cinder => ("cinder", by_reference, 13, reference(4)),
        Place::FlexVolume => ("flexVolume", by_reference, 12, reference(3)),
        Place::Rbd => ("rbd", by_reference, 11, reference(7)),
        Place::ScaleIo => ("scaleIO", by_reference, 25, reference(3)),
        Place::Iscsi => ("iscsi", by_reference, 8, reference(10)),
        Place::StorageOs => ("storageos", by_reference, 27, reference(5)),
        Place::Csi => (
            "csi",
            json!({"driver": "d", "nodePublishSecretRef": {"name": name}}),
            28,
            Message::new().text(1, "d").message(5, named(name)),
        ),
        Place::PersistentVolumeClaim => (
            "persistentVolumeClaim",
            json!({"claimName": name, "readOnly": false}),
            10,
            named(name).noise(),
        ),
        Place::EphemeralClaim => ("ephemeral", json!({}), 29, Message::new()),
        _empty_dir => ("emptyDir", json!({"medium": "Memory"}), 2, named("Memory")),
    };
    let volume = match place {
        Place::EphemeralClaim => name.to_owned(),
        _other => format!("v{at}"),
    };
    Part {
        at: "volumes",
        json: json!({"name": volume, key: source}),
        number: 1,
        message: named(&volume).message(2, Message::new().message(number, message)),
    }
}

pub(crate) fn volume(volume: &Volume) -> Written {
    let (metadata_json, metadata) = metadata("", &volume.name, &[]);
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"});
    let mut source = Message::new().noise();
    let mut csi = Message::new().text(1, "driver").text(2, "handle");
    for (place, namespace, name) in &volume.secrets {
        let json = match namespace {
            Some(namespace) => json!({"name": name, "namespace": namespace}),
            None => json!({"name": name}),
        };
        let namespace = namespace.as_deref().unwrap_or_default();
        let reference = named(name).text(2, namespace);
        let by_reference = |number| Message::new().message(number, reference.clone());
        let (key, number, message) = match place {
            VolumePlace::AzureFile => {
                let mut azure = json!({"secretName": name, "shareName": "share"});
                let mut message = named(name).text(2, "share");
                azure["secretNamespace"] = json["namespace"].clone(); // null, if there is none
                if !json["namespace"].is_null() {
                    message = message.text(4, namespace);
                }
                spec["azureFile"] = azure;
                source = source.message(13, message);
                continue;
            }
            VolumePlace::Csi(which) => {
                let (key, number) = csi_secret(*which);
                spec["csi"][key] = json;
                csi = csi.message(number, reference);
                continue;
            }
            VolumePlace::CephFs => ("cephfs", 9, by_reference(5)),
            VolumePlace::Cinder => ("cinder", 8, by_reference(4)),
            VolumePlace::FlexVolume => ("flexVolume", 12, by_reference(3)),
            VolumePlace::Rbd => ("rbd", 6, by_reference(7)),
            VolumePlace::ScaleIo => ("scaleIO", 19, by_reference(3)),
            VolumePlace::Iscsi => ("iscsi", 7, by_reference(10)),
            VolumePlace::StorageOs => {
                let reference = Message::new().text(1, "Secret").text(2, namespace);
                let message = Message::new().message(5, reference.text(3, name));
                ("storageos", 21, message)
            }
        };
        spec[key] = json!({"secretRef": json});
        source = source.message(number, message);
    }
    if spec.get("csi").is_some() {
        source = source.message(22, csi);
    }
    let mut spec_message = Message::new().message(2, source).text(3, "ReadWriteOnce");
    if let Some((namespace, name)) = &volume.claim {
        spec["claimRef"] =
            json!({"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name});
        let claim = Message::new().text(1, "PersistentVolumeClaim");
        spec_message = spec_message.message(4, claim.text(2, namespace).text(3, name));
    }
    let json = json!({"metadata": metadata_json, "spec": spec});
    let message = Message::new().message(1, metadata).message(2, spec_message);
    Written::new("PersistentVolume", "v1", json, message)
}

fn csi_secret(which: CsiSecret) -> (&'static str, u32) {
    match which {
        CsiSecret::ControllerPublish => ("controllerPublishSecretRef", 6),
        CsiSecret::NodeStage => ("nodeStageSecretRef", 7),
        CsiSecret::NodePublish => ("nodePublishSecretRef", 8),
        CsiSecret::ControllerExpand => ("controllerExpandSecretRef", 9),
        CsiSecret::NodeExpand => ("nodeExpandSecretRef", 10),
    }
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

const RBAC: &str = "rbac.authorization.k8s.io";

pub(crate) fn role(role: &Role) -> Written {
    let (metadata_json, metadata) = metadata(&role.namespace, &role.name, &[]);
    let mut message = Message::new().message(1, metadata);
    let mut rules = Vec::new();
    for rule in &role.rules {
        let json = json!({
            "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources,
            "resourceNames": rule.names, "nonResourceURLs": rule.urls,
        });
        let rule = Message::new()
            .texts(1, &rule.verbs)
            .texts(2, &rule.groups)
            .texts(3, &rule.resources)
            .texts(4, &rule.names)
            .texts(5, &rule.urls);
        rules.push(json);
        message = message.message(2, rule);
    }
    let json = json!({"metadata": metadata_json, "rules": rules});
    let kind = if role.namespace.is_empty() {
        "ClusterRole"
    } else {
        "Role"
    };
    Written::new(kind, "rbac.authorization.k8s.io/v1", json, message)
}

pub(crate) fn binding(binding: &Binding) -> Written {
    let (metadata_json, metadata) = metadata(&binding.namespace, &binding.name, &[]);
    let (kind, name) = &binding.role;
    let mut message = Message::new().message(1, metadata);
    let mut subjects = Vec::new();
    for (kind, namespace, name) in &binding.subjects {
        let mut json = json!({"kind": kind, "apiGroup": RBAC, "name": name});
        if !namespace.is_empty() {
            json["namespace"] = json!(namespace);
        }
        subjects.push(json);
        let subject = Message::new().text(1, kind).text(2, RBAC);
        message = message.message(2, subject.text(3, name).text(4, namespace));
    }
    let role = Message::new().text(1, RBAC).text(2, kind).text(3, name);
    let message = message.message(3, role);
    let json = json!({
        "metadata": metadata_json, "subjects": subjects,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
    });
    let kind = if binding.namespace.is_empty() {
        "ClusterRoleBinding"
    } else {
        "RoleBinding"
    };
    Written::new(kind, "rbac.authorization.k8s.io/v1", json, message)
}
