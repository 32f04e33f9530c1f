//! The random part: who asks, what there is, what is asked. Out of so few names that they meet.

use fastrand::Rng;
use serde_json::{Value, json};
use watershed_loadtest::apiserver::{
    Apiserver,
    authn::{UserInfo, Users},
    certs::Credential,
};

use crate::objects::load;

const RBAC: &str = "rbac.authorization.k8s.io";
const NODES: [&str; 2] = ["n1", "n.2"];
const NAMESPACES: [&str; 2] = ["a", "b"];
/// The last is a claim made for the first, by a volume called as the second.
const NAMES: [&str; 3] = ["x", "y", "x-y"];

/// Users with tokens: token, name and groups.
const TOKENS: [(&str, &str, &[&str]); 4] = [
    (
        "robot-token",
        "system:serviceaccount:a:x",
        &["system:serviceaccounts", "system:serviceaccounts:a"],
    ),
    ("alice-token", "alice", &["dev"]),
    ("bob-token", "bob", &["dev", "ops"]),
    ("twin-token", "system:node:n1", &["ops", "system:nodes"]),
];

/// Users with certificates: name and group.
const CERTIFICATES: [(&str, &str); 5] = [
    ("system:node:n1", "system:nodes"),
    ("system:node:n.2", "system:nodes"),
    ("system:node:n1", "dev"),
    ("n1", "system:nodes"),
    ("system:kube-proxy", "dev"),
];

/// Resources that questions are about: path of the version, name, and whether it is namespaced.
const RESOURCES: [(&str, &str, bool); 20] = [
    ("/api/v1", "secrets", true),
    ("/api/v1", "secrets", true),
    ("/api/v1", "configmaps", true),
    ("/api/v1", "configmaps", true),
    ("/api/v1", "pods", true),
    ("/api/v1", "pods", true),
    ("/api/v1", "persistentvolumeclaims", true),
    ("/api/v1", "serviceaccounts", true),
    ("/api/v1", "services", true),
    ("/api/v1", "endpoints", true),
    ("/api/v1", "nodes", false),
    ("/api/v1", "namespaces", false),
    ("/api/v1", "persistentvolumes", false),
    ("/apis/storage.k8s.io/v1", "volumeattachments", false),
    ("/apis/storage.k8s.io/v1", "csinodes", false),
    ("/apis/node.k8s.io/v1", "runtimeclasses", false),
    ("/apis/resource.k8s.io/v1", "resourceslices", false),
    ("/apis/resource.k8s.io/v1", "resourceclaims", true),
    ("/apis/coordination.k8s.io/v1", "leases", true),
    ("/apis/apps/v1", "deployments", true),
];

/// Somebody who asks.
pub(super) struct Caller {
    pub(super) user: UserInfo,
    pub(super) certificate: Option<Credential>,
    pub(super) token: Option<&'static str>,
}

/// The tokens the apiserver knows.
pub(super) fn users() -> anyhow::Result<Users> {
    let line = |(token, name, groups): &(&str, &str, &[&str])| {
        format!("{token},{name},u-{token},\"{}\"", groups.join(","))
    };
    Users::parse(&TOKENS.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Everybody who asks.
pub(super) fn callers(apiserver: &Apiserver) -> anyhow::Result<Vec<Caller>> {
    let user = |name: &str, groups: &[&str]| UserInfo {
        name: name.to_owned(),
        groups: groups
            .iter()
            .chain(&["system:authenticated"])
            .map(|&it| it.to_owned())
            .collect(),
        ..UserInfo::default()
    };
    let mut callers = Vec::new();
    for (name, group) in CERTIFICATES {
        callers.push(Caller {
            user: user(name, &[group]),
            certificate: Some(apiserver.pki().issue(name, Some(group))?),
            token: None,
        });
    }
    for (token, name, groups) in TOKENS {
        callers.push(Caller {
            user: user(name, groups),
            certificate: None,
            token: Some(token),
        });
    }
    Ok(callers)
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

fn often(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

fn some<'a>(rng: &mut Rng, of: &[&'a str]) -> Vec<&'a str> {
    let mut kept: Vec<_> = of.iter().copied().filter(|_| often(rng, 35)).collect();
    if kept.is_empty() {
        kept.push(one(rng, of));
    }
    kept
}

/// What a GET can be for: path and query.
pub(super) fn target(rng: &mut Rng) -> String {
    let (version, resource, namespaced) = RESOURCES[rng.usize(..RESOURCES.len())];
    let namespace = match (namespaced, resource) {
        (true, "leases") => "/namespaces/kube-node-lease".to_owned(),
        (true, _) if often(rng, 85) => format!("/namespaces/{}", one(rng, &NAMESPACES)),
        _ => String::new(),
    };
    let own = match resource {
        "nodes" | "leases" | "csinodes" => one(rng, &NODES),
        "namespaces" => one(rng, &NAMESPACES),
        _ => one(rng, &NAMES),
    };
    let is_cluster_wide = namespaced && namespace.is_empty();
    if !is_cluster_wide && often(rng, 45) {
        let subresource = match rng.u32(..12) {
            0 => "/status",
            1 => "/log",
            _ => "",
        };
        let query = if often(rng, 30) {
            "?resourceVersion=0"
        } else {
            ""
        };
        return format!("{version}{namespace}/{resource}/{own}{subresource}{query}");
    }
    let legacy = if often(rng, 5) { "/watch" } else { "" };
    let mut query = Vec::new();
    if often(rng, 70) {
        query.push(format!("fieldSelector={}", selector(rng, resource, own)));
    }
    if often(rng, 10) {
        query.push("labelSelector=app%3Dx".to_owned());
    }
    if often(rng, 30) {
        query.push("resourceVersion=0".to_owned());
    }
    if often(rng, 40) || !legacy.is_empty() {
        query.push("watch=1&timeoutSeconds=1".to_owned());
    }
    let path = format!("{version}{legacy}{namespace}/{resource}");
    match query.is_empty() {
        true => path,
        false => format!("{path}?{}", query.join("&")),
    }
}

fn selector(rng: &mut Rng, resource: &str, name: &str) -> String {
    let by_node = matches!(resource, "pods" | "resourceslices");
    let node = format!("spec.nodeName%3D{}", one(rng, &NODES));
    let named = format!("metadata.name%3D{name}");
    match rng.u32(..10) {
        0..=3 if by_node => node,
        4 if by_node => format!("{node},{named}"),
        5 if by_node => format!("spec.nodeName!%3D{}", one(rng, &NODES)),
        6 => format!("metadata.name!%3D{name}"),
        7 => format!("{named},metadata.namespace%3Da"),
        8 if often(rng, 30) => "bogus".to_owned(),
        _ => named,
    }
}

/// What is written.
pub(super) struct World<'a> {
    pub(super) apiserver: &'a Apiserver,
}

impl<'a> World<'a> {
    pub(super) fn new(apiserver: &'a Apiserver) -> Self {
        Self { apiserver }
    }

    /// Writes one object, or deletes one that may be there.
    pub(super) fn change(&mut self, rng: &mut Rng) {
        let (group, resource, object) = match rng.u32(..20) {
            0..=7 => ("", "pods", pod(rng)),
            8..=9 => ("", "persistentvolumes", volume(rng)),
            10 => (
                "storage.k8s.io",
                "volumeattachments",
                on_node(rng, "VolumeAttachment"),
            ),
            11 => (
                "resource.k8s.io",
                "resourceslices",
                on_node(rng, "ResourceSlice"),
            ),
            12..=13 => (RBAC, "roles", role(rng, "Role")),
            14 => (RBAC, "clusterroles", role(rng, "ClusterRole")),
            15..=17 => (RBAC, "rolebindings", binding(rng, "RoleBinding")),
            18 => (
                RBAC,
                "clusterrolebindings",
                binding(rng, "ClusterRoleBinding"),
            ),
            _ => (
                "",
                "secrets",
                json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": metadata(rng, true)}),
            ),
        };
        if !often(rng, 40) {
            load(self.apiserver, (group, resource), object);
            return;
        }
        let found = self.apiserver.registry().find(group, "v1", resource);
        let found = found.expect("it is built in");
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = (text("namespace"), text("name"));
        // It need not be there.
        let _ = self.apiserver.store().delete(&found, key, None, Some(0));
    }
}

fn metadata(rng: &mut Rng, namespaced: bool) -> Value {
    let mut metadata = json!({"name": one(rng, &NAMES), "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z"});
    if namespaced {
        metadata["namespace"] = json!(one(rng, &NAMESPACES));
    }
    metadata
}

fn pod(rng: &mut Rng) -> Value {
    let mut metadata = metadata(rng, true);
    if often(rng, 10) {
        metadata["annotations"] = json!({"kubernetes.io/config.mirror": "h"});
    }
    let mut container = json!({"name": "c", "image": "i"});
    let (mut volumes, mut claims, mut made) = (Vec::new(), Vec::new(), Vec::new());
    let mut spec = json!({});
    if !often(rng, 15) {
        spec["nodeName"] = json!(one(rng, &NODES));
    }
    for at in 0..rng.usize(..6) {
        let (volume, name) = (format!("v{at}"), one(rng, &NAMES));
        let source = match rng.u32(..14) {
            0 | 1 => json!({"secret": {"secretName": name}}),
            2 | 3 => json!({"configMap": {"name": name}}),
            4 => json!({"projected": {"sources": [{"secret": {"name": name}},
                {"configMap": {"name": one(rng, &NAMES)}}]}}),
            5 | 6 => json!({"persistentVolumeClaim": {"claimName": name}}),
            7 => json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": name}}}),
            8 => {
                // Named so that what is made for it has one of the names.
                let ephemeral = json!({"volumeClaimTemplate": {"spec": {}}});
                volumes.push(json!({"name": "y", "ephemeral": ephemeral}));
                continue;
            }
            9 => {
                spec["imagePullSecrets"] = json!([{"name": name}]);
                continue;
            }
            10 => {
                container["envFrom"] = json!([{"secretRef": {"name": name}}]);
                continue;
            }
            11 => {
                spec["serviceAccountName"] = json!(name);
                continue;
            }
            12 => {
                claims.push(json!({"name": volume, "resourceClaimName": name}));
                continue;
            }
            _ => {
                claims.push(json!({"name": volume, "resourceClaimTemplateName": "t"}));
                made.push(json!({"name": volume, "resourceClaimName": name}));
                continue;
            }
        };
        let mut source = source;
        source["name"] = json!(volume);
        volumes.push(source);
    }
    spec["containers"] = json!([container]);
    spec["volumes"] = json!(volumes);
    spec["resourceClaims"] = json!(claims);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
        "status": {"resourceClaimStatuses": made}})
}

fn volume(rng: &mut Rng) -> Value {
    let mut reference = json!({"name": one(rng, &NAMES)});
    if often(rng, 70) {
        reference["namespace"] = json!(one(rng, &NAMESPACES));
    }
    let source = match rng.u32(..4) {
        0 => (
            "csi",
            json!({"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": reference}),
        ),
        1 => (
            "csi",
            json!({"driver": "d", "volumeHandle": "h",
            "controllerPublishSecretRef": reference}),
        ),
        2 => (
            "rbd",
            json!({"monitors": [], "image": "i", "secretRef": reference}),
        ),
        _ => ("cinder", json!({"volumeID": "v", "secretRef": reference})),
    };
    let mut spec = json!({});
    spec[source.0] = source.1;
    if often(rng, 85) {
        spec["claimRef"] = json!({"namespace": one(rng, &NAMESPACES), "name": one(rng, &NAMES)});
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata(rng, false),
        "spec": spec})
}

fn on_node(rng: &mut Rng, kind: &str) -> Value {
    let group = match kind {
        "ResourceSlice" => "resource.k8s.io/v1",
        _ => "storage.k8s.io/v1",
    };
    json!({"apiVersion": group, "kind": kind, "metadata": metadata(rng, false),
        "spec": {"nodeName": one(rng, &NODES)}})
}

fn role(rng: &mut Rng, kind: &str) -> Value {
    let verbs = ["get", "list", "watch"];
    let resources = [
        "secrets",
        "configmaps",
        "pods",
        "pods/status",
        "nodes",
        "services",
        "leases",
        "deployments",
        "namespaces",
        "*/status",
    ];
    let groups = ["", "apps", "coordination.k8s.io"];
    let rules = (0..=rng.usize(..2)).map(|_| {
        let mut rule = json!({"verbs": some(rng, &verbs), "apiGroups": some(rng, &groups),
            "resources": some(rng, &resources)});
        if often(rng, 40) {
            rule["resourceNames"] = json!([one(rng, &NAMES)]);
        }
        if often(rng, 5) {
            rule["resources"] = json!(["*"]);
        }
        rule
    });
    let rules: Vec<Value> = rules.collect();
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "rules": rules,
        "metadata": metadata(rng, kind == "Role")})
}

fn binding(rng: &mut Rng, kind: &str) -> Value {
    let subjects = (0..=rng.usize(..2)).map(|_| match rng.u32(..8) {
        0..=2 => json!({"apiGroup": RBAC, "kind": "User",
            "name": one(rng, &["alice", "bob", "system:node:n1", "system:kube-proxy"])}),
        3..=5 => json!({"apiGroup": RBAC, "kind": "Group",
            "name": one(rng, &["dev", "ops", "system:nodes", "system:serviceaccounts:a"])}),
        6 if often(rng, 20) => json!({"apiGroup": RBAC, "kind": "Group",
            "name": "system:authenticated"}),
        _ => json!({"kind": "ServiceAccount", "name": "x", "namespace": one(rng, &NAMESPACES)}),
    });
    let subjects: Vec<Value> = subjects.collect();
    let role = match kind {
        "RoleBinding" => one(rng, &["Role", "ClusterRole"]),
        _ => "ClusterRole",
    };
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "subjects": subjects,
        "metadata": metadata(rng, kind == "RoleBinding"),
        "roleRef": {"apiGroup": RBAC, "kind": role, "name": one(rng, &NAMES)}})
}
