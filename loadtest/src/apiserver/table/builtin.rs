//! The columns of the built-in kinds after the name.
//!
//! Descriptions are wire constants where a recording shows them, and short words of our own where
//! none does; nobody compares those.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, age_of, nodes, pods};
use crate::apiserver::resources::Resource;

/// The description of every Name column.
pub(super) const NAME: &str = "Name must be unique within a namespace. Is required when creating \
    resources, although some resources may allow a client to request the generation of an \
    appropriate name automatically. Name is primarily intended for creation idempotence and \
    configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// The description of every Age column.
pub(super) const AGE: &str = "CreationTimestamp is a timestamp representing the server time when \
    this object was created. It is not guaranteed to be set in happens-before order across \
    separate operations. Clients may not set this value. It is represented in RFC3339 form and \
    is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

const DATA: &str = "Data contains the configuration data. Each key must consist of alphanumeric \
    characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData \
    field. The keys stored in Data must not overlap with the keys in the BinaryData field, this \
    is enforced during validation process.";

pub(super) const AGE_COLUMN: Column = column("Age", AGE, age);

/// A string column shown always.
pub(super) const fn column(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column {
        name,
        kind: "string",
        priority: 0,
        description,
        cell,
    }
}

/// A string column shown by `-o wide`.
pub(super) const fn wide(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column {
        name,
        kind: "string",
        priority: 1,
        description,
        cell,
    }
}

/// A string column whose cell is the text at a pointer.
macro_rules! text {
    ($name:literal, $pointer:literal) => {
        column($name, $name, |object, _| text_at(object, $pointer))
    };
}

/// A string column whose cell is the number at a pointer.
macro_rules! count {
    ($name:literal, $pointer:literal) => {
        column($name, $name, |object, _| {
            json!(
                object
                    .pointer($pointer)
                    .and_then(Value::as_i64)
                    .unwrap_or(0)
                    .to_string()
            )
        })
    };
}

/// The columns of a resource after its name.
pub(super) fn columns(resource: &Resource) -> &'static [Column] {
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "pods") => pods::COLUMNS,
        ("", "nodes") => nodes::COLUMNS,
        ("", "namespaces") => NAMESPACES,
        ("", "configmaps") => CONFIG_MAPS,
        ("", "secrets") => SECRETS,
        ("", "services") => SERVICES,
        ("", "events") | ("events.k8s.io", "events") => EVENTS,
        ("", "persistentvolumes") => VOLUMES,
        ("", "persistentvolumeclaims") => CLAIMS,
        ("apps", "deployments") => DEPLOYMENTS,
        ("apps", "replicasets") | ("", "replicationcontrollers") => REPLICA_SETS,
        ("apps", "daemonsets") => DAEMON_SETS,
        ("apps", "statefulsets") => STATEFUL_SETS,
        ("batch", "jobs") => JOBS,
        ("batch", "cronjobs") => CRON_JOBS,
        ("coordination.k8s.io", "leases") => LEASES,
        ("discovery.k8s.io", "endpointslices") => ENDPOINT_SLICES,
        ("node.k8s.io", "runtimeclasses") => RUNTIME_CLASSES,
        ("storage.k8s.io", "storageclasses") => STORAGE_CLASSES,
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => ROLES,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => BINDINGS,
        ("apiextensions.k8s.io", "customresourcedefinitions") => DEFINITIONS,
        _ => GENERIC,
    }
}

const GENERIC: &[Column] = &[AGE_COLUMN];

const NAMESPACES: &[Column] = &[
    column("Status", "The status of the namespace", |object, _| {
        text_at(object, "/status/phase")
    }),
    AGE_COLUMN,
];

const CONFIG_MAPS: &[Column] = &[
    column("Data", DATA, |object, _| entries(object)),
    AGE_COLUMN,
];

const SECRETS: &[Column] = &[
    text!("Type", "/type"),
    column("Data", "Number of entries", |object, _| entries(object)),
    AGE_COLUMN,
];

const SERVICES: &[Column] = &[
    text!("Type", "/spec/type"),
    column("Cluster-IP", "Address in the cluster", |object, _| {
        none_if_empty(text_at(object, "/spec/clusterIP"))
    }),
    column("External-IP", "Address outside the cluster", |object, _| {
        external_address(object)
    }),
    column("Port(s)", "Ports and protocols", |object, _| {
        service_ports(object)
    }),
    AGE_COLUMN,
    wide("Selector", "Pods that serve", |object, _| {
        selector(&object["spec"]["selector"])
    }),
];

const EVENTS: &[Column] = &[
    column("Last Seen", "Age of the last occurrence", |object, now| {
        let last = &object["lastTimestamp"];
        let last = if last.is_null() {
            &object["metadata"]["creationTimestamp"]
        } else {
            last
        };
        json!(age_of(last, now))
    }),
    text!("Type", "/type"),
    text!("Reason", "/reason"),
    column("Object", "What it is about", |object, _| {
        let about = &object["involvedObject"];
        let text = |member: &str| about[member].as_str().unwrap_or_default().to_lowercase();
        json!(format!("{}/{}", text("kind"), text("name")))
    }),
    text!("Message", "/message"),
];

const VOLUMES: &[Column] = &[
    text!("Capacity", "/spec/capacity/storage"),
    column("Access Modes", "Access modes", |object, _| {
        access_modes(&object["spec"])
    }),
    text!("Reclaim Policy", "/spec/persistentVolumeReclaimPolicy"),
    text!("Status", "/status/phase"),
    column("Claim", "The claim it is bound to", |object, _| {
        let claim = &object["spec"]["claimRef"];
        match (claim["namespace"].as_str(), claim["name"].as_str()) {
            (Some(namespace), Some(name)) => json!(format!("{namespace}/{name}")),
            _ => json!(""),
        }
    }),
    text!("StorageClass", "/spec/storageClassName"),
    AGE_COLUMN,
];

const CLAIMS: &[Column] = &[
    text!("Status", "/status/phase"),
    text!("Volume", "/spec/volumeName"),
    text!("Capacity", "/status/capacity/storage"),
    column("Access Modes", "Access modes", |object, _| {
        access_modes(&object["status"])
    }),
    text!("StorageClass", "/spec/storageClassName"),
    AGE_COLUMN,
];

const DEPLOYMENTS: &[Column] = &[
    column("Ready", "Ready replicas of those wanted", |object, _| {
        ready_of(object, "/spec/replicas")
    }),
    count!("Up-to-date", "/status/updatedReplicas"),
    count!("Available", "/status/availableReplicas"),
    AGE_COLUMN,
    wide("Containers", "Containers", |object, _| {
        containers(object, "name")
    }),
    wide("Images", "Images", |object, _| containers(object, "image")),
    wide("Selector", "Selector", |object, _| {
        selector(&object["spec"]["selector"]["matchLabels"])
    }),
];

const REPLICA_SETS: &[Column] = &[
    count!("Desired", "/spec/replicas"),
    count!("Current", "/status/replicas"),
    count!("Ready", "/status/readyReplicas"),
    AGE_COLUMN,
];

const DAEMON_SETS: &[Column] = &[
    count!("Desired", "/status/desiredNumberScheduled"),
    count!("Current", "/status/currentNumberScheduled"),
    count!("Ready", "/status/numberReady"),
    count!("Up-to-date", "/status/updatedNumberScheduled"),
    count!("Available", "/status/numberAvailable"),
    AGE_COLUMN,
];

const STATEFUL_SETS: &[Column] = &[
    column("Ready", "Ready replicas of those wanted", |object, _| {
        ready_of(object, "/spec/replicas")
    }),
    AGE_COLUMN,
];

const JOBS: &[Column] = &[
    column(
        "Completions",
        "Finished pods of those wanted",
        |object, _| {
            let count = |pointer| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
            json!(format!(
                "{}/{}",
                count("/status/succeeded"),
                count("/spec/completions")
            ))
        },
    ),
    AGE_COLUMN,
];

const CRON_JOBS: &[Column] = &[
    text!("Schedule", "/spec/schedule"),
    column("Suspend", "Whether it is paused", |object, _| {
        json!(if object["spec"]["suspend"] == true {
            "True"
        } else {
            "False"
        })
    }),
    AGE_COLUMN,
];

const LEASES: &[Column] = &[text!("Holder", "/spec/holderIdentity"), AGE_COLUMN];

const ENDPOINT_SLICES: &[Column] = &[
    text!("AddressType", "/addressType"),
    column("Ports", "Ports", |object, _| {
        let ports = list(&object["ports"]).filter_map(|port| port["port"].as_i64());
        joined_or_unset(ports.map(|port| port.to_string()))
    }),
    column("Endpoints", "Addresses", |object, _| {
        let addresses = list(&object["endpoints"]).flat_map(|end| list(&end["addresses"]));
        joined_or_unset(addresses.filter_map(Value::as_str).map(str::to_owned))
    }),
    AGE_COLUMN,
];

const RUNTIME_CLASSES: &[Column] = &[text!("Handler", "/handler"), AGE_COLUMN];

const STORAGE_CLASSES: &[Column] = &[
    text!("Provisioner", "/provisioner"),
    text!("ReclaimPolicy", "/reclaimPolicy"),
    text!("VolumeBindingMode", "/volumeBindingMode"),
    AGE_COLUMN,
];

const ROLES: &[Column] = &[column("Created At", AGE, |object, _| {
    text_at(object, "/metadata/creationTimestamp")
})];

const BINDINGS: &[Column] = &[
    column("Role", "The role that is granted", |object, _| {
        let role = &object["roleRef"];
        let text = |member: &str| role[member].as_str().unwrap_or_default();
        json!(format!("{}/{}", text("kind"), text("name")))
    }),
    AGE_COLUMN,
];

const DEFINITIONS: &[Column] = &[column("Created At", AGE, |object, _| {
    text_at(object, "/metadata/creationTimestamp")
})];

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    json!(age_of(&object["metadata"]["creationTimestamp"], now))
}

pub(super) fn text_at(object: &Value, pointer: &str) -> Value {
    json!(
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    )
}

pub(super) fn none_if_empty(text: Value) -> Value {
    if text == "" { json!("<none>") } else { text }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Labels of a selector as `a=b,c=d`.
fn selector(labels: &Value) -> Value {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let text = pairs.collect::<Vec<_>>().join(",");
    none_if_empty(json!(text))
}

fn entries(object: &Value) -> Value {
    let count = |member: &str| object[member].as_object().map_or(0, serde_json::Map::len);
    json!(count("data") + count("binaryData"))
}

fn joined_or_unset(texts: impl Iterator<Item = String>) -> Value {
    let text = texts.collect::<Vec<_>>().join(",");
    if text.is_empty() {
        json!("<unset>")
    } else {
        json!(text)
    }
}

fn ready_of(object: &Value, wanted: &str) -> Value {
    let count = |pointer| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    json!(format!(
        "{}/{}",
        count("/status/readyReplicas"),
        count(wanted)
    ))
}

fn containers(object: &Value, member: &str) -> Value {
    let containers = list(&object["spec"]["template"]["spec"]["containers"]);
    let texts = containers.filter_map(|container| container[member].as_str());
    json!(texts.collect::<Vec<_>>().join(","))
}

fn access_modes(holder: &Value) -> Value {
    let short = list(&holder["accessModes"]).filter_map(|mode| match mode.as_str()? {
        "ReadWriteOnce" => Some("RWO"),
        "ReadOnlyMany" => Some("ROX"),
        "ReadWriteMany" => Some("RWX"),
        "ReadWriteOncePod" => Some("RWOP"),
        _ => None,
    });
    json!(short.collect::<Vec<_>>().join(","))
}

fn external_address(service: &Value) -> Value {
    match service["spec"]["type"].as_str() {
        Some("ExternalName") => text_at(service, "/spec/externalName"),
        Some("LoadBalancer") => {
            let ingress = service.pointer("/status/loadBalancer/ingress/0/ip");
            json!(ingress.and_then(Value::as_str).unwrap_or("<pending>"))
        }
        _ => json!("<none>"),
    }
}

fn service_ports(service: &Value) -> Value {
    let ports = list(&service["spec"]["ports"]).map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
            _ => format!("{}/{protocol}", port["port"]),
        }
    });
    none_if_empty(json!(ports.collect::<Vec<_>>().join(",")))
}
