//! Pods: a part for each mention.

use serde_json::{Map, Value, json};

use super::{Message, Written, local, metadata, named};
use crate::objects::{Container, Made, Place, Pod, Target};

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
