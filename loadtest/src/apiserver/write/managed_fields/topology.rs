//! Which lists are maps or sets, and which maps are one value, for ownership of fields.
//!
//! Owns the `listType`, `listMapKey` and `structType` markers of the built-in types that clients
//! of this server write, by path. Custom resources have atomic lists and granular maps unless
//! their schema says otherwise, which is not looked at.
//!
//! Invariant: an unknown list is atomic, an unknown map is granular, as upstream.

use serde_json::{Map, Value};

/// The markers of one kind.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Topology<'a> {
    kind: &'a str,
}

/// How the elements of a list are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum ListShape {
    /// The list is one value.
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(&'static [&'static str]),
}

impl<'a> Topology<'a> {
    pub(in super::super) fn of(kind: &'a str) -> Self {
        Self { kind }
    }

    /// The shape of the list at a path of elements (`f:spec`, `f:containers`).
    pub(super) fn list(self, path: &[String]) -> ListShape {
        let field = last_field(path);
        let parent = path
            .len()
            .checked_sub(1)
            .map_or("", |end| last_field(&path[..end]));
        match (parent, field) {
            ("metadata", "finalizers") => ListShape::Set,
            ("metadata", "ownerReferences") => ListShape::Map(&["uid"]),
            ("spec", "volumeLifecycleModes") if self.kind == "CSIDriver" => ListShape::Set,
            ("spec", "podCIDRs") => ListShape::Set,
            ("spec", "drivers") if self.kind == "CSINode" => ListShape::Map(&["name"]),
            ("spec", "ports") if self.kind == "Service" => ListShape::Map(&["port", "protocol"]),
            ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
                ListShape::Map(&["containerPort", "protocol"])
            }
            (_, "containers" | "initContainers" | "ephemeralContainers") => {
                ListShape::Map(&["name"])
            }
            (_, "env" | "imagePullSecrets" | "schedulingGates") => ListShape::Map(&["name"]),
            ("spec", "volumes" | "resourceClaims") => ListShape::Map(&["name"]),
            (_, "volumeMounts") => ListShape::Map(&["mountPath"]),
            (_, "volumeDevices") => ListShape::Map(&["devicePath"]),
            (_, "hostAliases") | ("status", "podIPs") => ListShape::Map(&["ip"]),
            (_, "topologySpreadConstraints") => {
                ListShape::Map(&["topologyKey", "whenUnsatisfiable"])
            }
            ("status", "conditions") => ListShape::Map(&["type"]),
            ("status", "addresses") if self.kind == "Node" => ListShape::Map(&["type"]),
            ("status", "resourceClaimStatuses") => ListShape::Map(&["name"]),
            ("", "secrets") if self.kind == "ServiceAccount" => ListShape::Map(&["name"]),
            ("", "webhooks") => ListShape::Map(&["name"]),
            _ => ListShape::Atomic,
        }
    }

    /// Whether the map at a path is one value.
    pub(super) fn is_atomic(self, path: &[String]) -> bool {
        match last_field(path) {
            "selector" => matches!(
                self.kind,
                "Deployment"
                    | "ReplicaSet"
                    | "DaemonSet"
                    | "StatefulSet"
                    | "ReplicationController"
                    | "Service"
                    | "Job"
                    | "PodDisruptionBudget"
                    | "PersistentVolumeClaim"
            ),
            "nodeSelector" | "nodeSelectorTerms" | "roleRef" | "podSelector" => true,
            "namespaceSelector" => true,
            "labelSelector" => !self.kind.ends_with("Review"),
            "involvedObject" | "targetRef" => true,
            "secretKeyRef" | "configMapKeyRef" | "fieldRef" | "resourceFieldRef" => true,
            "requiredDuringSchedulingIgnoredDuringExecution" => true,
            _ => false,
        }
    }
}

/// The field a path ends at; list elements are passed over.
fn last_field(path: &[String]) -> &str {
    let field = path
        .iter()
        .rev()
        .find_map(|element| element.strip_prefix("f:"));
    field.unwrap_or("")
}

/// The path element of a list's item; a key with a default is filled in.
pub(in super::super) fn key_of(shape: ListShape, item: &Value) -> String {
    match shape {
        ListShape::Atomic | ListShape::Set => format!("v:{item}"),
        ListShape::Map(fields) => {
            let mut key = Map::new();
            for field in fields {
                let value = item.get(*field).cloned();
                let default = || match *field {
                    "protocol" => Value::from("TCP"),
                    _ => Value::Null,
                };
                key.insert((*field).to_owned(), value.unwrap_or_else(default));
            }
            format!("k:{}", Value::Object(key))
        }
    }
}
