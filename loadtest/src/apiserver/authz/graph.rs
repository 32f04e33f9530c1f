//! Which objects a node may read because a pod bound to it uses them.
//!
//! Owns a reverse index instead of a general graph: per used object the nodes that use it, with a
//! count per node; volumes reach nodes through their claim, secrets also through volumes. Edges
//! follow `plugin/pkg/auth/authorizer/node/graph.go`, 1.36: a pod counts until it is deleted, a
//! mirror pod grants nothing but itself.
//!
//! Invariant: the counts equal the references of the pods held in `pods`; removing the last pod of
//! a node leaves nothing behind.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// The kinds a pod can refer to in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Used {
    /// `secrets`.
    Secret,
    /// `configmaps`.
    ConfigMap,
    /// `persistentvolumeclaims`.
    Claim,
    /// `resourceclaims`.
    ResourceClaim,
    /// `serviceaccounts`.
    ServiceAccount,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    pods: HashMap<Key, Pod>,
    users: HashMap<(Used, Key), HashMap<String, usize>>,
    volumes: HashMap<String, Volume>,
    secret_volumes: HashMap<Key, BTreeSet<String>>,
    /// Node by name of a volume attachment.
    attachments: HashMap<String, String>,
    /// Node by name of a resource slice.
    slices: HashMap<String, String>,
}

/// Namespace and name.
type Key = (String, String);

#[derive(Debug)]
struct Pod {
    node: String,
    uses: BTreeSet<(Used, String)>,
}

#[derive(Debug)]
struct Volume {
    claim: Key,
    secrets: BTreeSet<Key>,
}

impl Graph {
    /// Whether objects of a resource make or break edges.
    pub(super) fn cares(group: &str, resource: &str) -> bool {
        matches!(
            (group, resource),
            ("", "pods" | "persistentvolumes")
                | ("storage.k8s.io", "volumeattachments")
                | ("resource.k8s.io", "resourceslices")
        )
    }

    pub(super) fn observe(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        object: Option<&Value>,
    ) {
        match resource {
            "pods" => self.observe_pod((namespace.to_owned(), name.to_owned()), object),
            "persistentvolumes" => self.observe_volume(name, object),
            "volumeattachments" => node_of(&mut self.attachments, name, object),
            "resourceslices" => node_of(&mut self.slices, name, object),
            _ => {}
        }
    }

    pub(super) fn pod_on(&self, namespace: &str, name: &str, node: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        self.pods.get(&key).is_some_and(|pod| pod.node == node)
    }

    pub(super) fn used_on(&self, used: Used, namespace: &str, name: &str, node: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        if used == Used::Secret
            && let Some(volumes) = self.secret_volumes.get(&key)
            && volumes.iter().any(|volume| self.volume_on(volume, node))
        {
            return true;
        }
        self.users
            .get(&(used, key))
            .is_some_and(|nodes| nodes.contains_key(node))
    }

    pub(super) fn volume_on(&self, name: &str, node: &str) -> bool {
        self.volumes.get(name).is_some_and(|volume| {
            let users = self.users.get(&(Used::Claim, volume.claim.clone()));
            users.is_some_and(|nodes| nodes.contains_key(node))
        })
    }

    pub(super) fn attachment_on(&self, name: &str, node: &str) -> bool {
        self.attachments
            .get(name)
            .is_some_and(|known| known == node)
    }

    pub(super) fn slice_on(&self, name: &str, node: &str) -> bool {
        self.slices.get(name).is_some_and(|known| known == node)
    }

    fn observe_pod(&mut self, key: Key, object: Option<&Value>) {
        let pod = object.and_then(|object| {
            let node = text(&object["spec"]["nodeName"]);
            (!node.is_empty()).then(|| Pod {
                node,
                uses: uses(&key.1, object),
            })
        });
        let same = match (&pod, self.pods.get(&key)) {
            (Some(new), Some(old)) => new.node == old.node && new.uses == old.uses,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same {
            return; // the common case: a status update
        }
        if let Some(old) = self.pods.remove(&key) {
            for (used, name) in old.uses {
                let user = (used, (key.0.clone(), name));
                let Some(nodes) = self.users.get_mut(&user) else {
                    continue;
                };
                if let Some(count) = nodes.get_mut(&old.node) {
                    *count -= 1;
                    if *count == 0 {
                        nodes.remove(&old.node);
                    }
                }
                if nodes.is_empty() {
                    self.users.remove(&user);
                }
            }
        }
        if let Some(pod) = pod {
            for (used, name) in &pod.uses {
                let user = (*used, (key.0.clone(), name.clone()));
                *self
                    .users
                    .entry(user)
                    .or_default()
                    .entry(pod.node.clone())
                    .or_default() += 1;
            }
            self.pods.insert(key, pod);
        }
    }

    fn observe_volume(&mut self, name: &str, object: Option<&Value>) {
        if let Some(old) = self.volumes.remove(name) {
            for secret in old.secrets {
                if let Some(volumes) = self.secret_volumes.get_mut(&secret) {
                    volumes.remove(name);
                    if volumes.is_empty() {
                        self.secret_volumes.remove(&secret);
                    }
                }
            }
        }
        let Some(spec) = object.map(|object| &object["spec"]) else {
            return;
        };
        let Some(claim) = spec.get("claimRef").filter(|claim| !claim.is_null()) else {
            return;
        };
        let claim = (text(&claim["namespace"]), text(&claim["name"]));
        let secrets = volume_secrets(spec, &claim.0);
        for secret in &secrets {
            self.secret_volumes
                .entry(secret.clone())
                .or_default()
                .insert(name.to_owned());
        }
        self.volumes
            .insert(name.to_owned(), Volume { claim, secrets });
    }
}

fn node_of(index: &mut HashMap<String, String>, name: &str, object: Option<&Value>) {
    let node = object
        .map(|object| text(&object["spec"]["nodeName"]))
        .unwrap_or_default();
    if node.is_empty() {
        index.remove(name);
    } else {
        index.insert(name.to_owned(), node);
    }
}

/// What a pod refers to, by `pkg/api/v1/pod/util.go`, 1.36; nothing for a mirror pod.
fn uses(pod_name: &str, pod: &Value) -> BTreeSet<(Used, String)> {
    let mut uses = BTreeSet::new();
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return uses;
    }
    let spec = &pod["spec"];
    let mut add = |used, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            uses.insert((used, name.to_owned()));
        }
    };
    add(Used::ServiceAccount, &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        add(Used::Secret, &secret["name"]);
    }
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&spec[kind]) {
            for variable in list(&container["env"]) {
                let from = &variable["valueFrom"];
                add(Used::Secret, &from["secretKeyRef"]["name"]);
                add(Used::ConfigMap, &from["configMapKeyRef"]["name"]);
            }
            for source in list(&container["envFrom"]) {
                add(Used::Secret, &source["secretRef"]["name"]);
                add(Used::ConfigMap, &source["configMapRef"]["name"]);
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        volume_uses(volume, pod_name, &mut add);
    }
    for claim in list(&spec["resourceClaims"]) {
        add(Used::ResourceClaim, &claim["resourceClaimName"]);
        // A claim made of a template has the name that a controller wrote into the status.
        let made = list(&pod["status"]["resourceClaimStatuses"])
            .filter(|_| claim["resourceClaimName"].is_null())
            .find(|made| made["name"] == claim["name"]);
        if let Some(made) = made {
            add(Used::ResourceClaim, &made["resourceClaimName"]);
        }
    }
    let extended = &pod["status"]["extendedResourceClaimStatus"];
    add(Used::ResourceClaim, &extended["resourceClaimName"]);
    uses
}

fn volume_uses(volume: &Value, pod_name: &str, add: &mut impl FnMut(Used, &Value)) {
    add(Used::Secret, &volume["secret"]["secretName"]);
    add(Used::ConfigMap, &volume["configMap"]["name"]);
    add(Used::Claim, &volume["persistentVolumeClaim"]["claimName"]);
    add(Used::Secret, &volume["azureFile"]["secretName"]);
    add(Used::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
    for plugin in [
        "cephfs",
        "cinder",
        "flexVolume",
        "rbd",
        "scaleIO",
        "iscsi",
        "storageos",
    ] {
        add(Used::Secret, &volume[plugin]["secretRef"]["name"]);
    }
    for source in list(&volume["projected"]["sources"]) {
        add(Used::Secret, &source["secret"]["name"]);
        add(Used::ConfigMap, &source["configMap"]["name"]);
    }
    if volume["ephemeral"].is_object() {
        let claim = format!("{pod_name}-{}", text(&volume["name"]));
        add(Used::Claim, &Value::String(claim));
    }
}

/// The secrets a kubelet needs for a volume, by `pkg/api/v1/persistentvolume/util.go`, 1.36. Some
/// references may leave their namespace to the claim; others have none without it.
fn volume_secrets(spec: &Value, claim_namespace: &str) -> BTreeSet<Key> {
    let mut secrets = BTreeSet::new();
    let mut add = |reference: &Value, (name, namespace): (&str, &str), default: &str| {
        let name = text(&reference[name]);
        let namespace = text(&reference[namespace]);
        let namespace = if namespace.is_empty() {
            default.to_owned()
        } else {
            namespace
        };
        if !name.is_empty() && !namespace.is_empty() {
            secrets.insert((namespace, name));
        }
    };
    let azure = ("secretName", "secretNamespace");
    add(&spec["azureFile"], azure, claim_namespace);
    let usual = ("name", "namespace");
    for plugin in ["cephfs", "flexVolume", "rbd", "scaleIO", "iscsi"] {
        add(&spec[plugin]["secretRef"], usual, claim_namespace);
    }
    for plugin in ["cinder", "storageos"] {
        add(&spec[plugin]["secretRef"], usual, "");
    }
    for kind in [
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "nodeExpandSecretRef",
    ] {
        add(&spec["csi"][kind], usual, "");
    }
    secrets
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
