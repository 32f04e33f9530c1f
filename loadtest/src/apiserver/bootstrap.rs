//! The objects a control plane creates by itself.
//!
//! Owns the system namespaces, the default `kubernetes` service and the cluster roles and bindings
//! that make a fresh server usable, with the rules of `bootstrappolicy/policy.go`, 1.36, as far as
//! a client can notice. Refuses to repair them later: what an administrator deletes stays deleted.
//!
//! Invariant: installing twice changes nothing.

use serde_json::{Value, json};

use super::server::State;
use super::write::{create_trusted, now};

/// Stores the system namespaces and the default cluster roles and bindings; call it once, before
/// the first request.
pub fn install(state: &State) {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        create(state, "", "namespaces", json!({"metadata": {"name": name}}));
    }
    create(state, "", "services", kubernetes_service());
    for role in roles() {
        create(state, RBAC, "clusterroles", role);
    }
    for (name, role, groups) in BINDINGS {
        let binding = binding(name, role, "Group", groups);
        create(state, RBAC, "clusterrolebindings", binding);
    }
    let proxier = "system:node-proxier";
    let binding = binding(proxier, proxier, "User", &["system:kube-proxy"]);
    create(state, RBAC, "clusterrolebindings", binding);
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Name of a binding, its role and the groups it binds.
const BINDINGS: &[(&str, &str, &[&str])] = &[
    ("cluster-admin", "cluster-admin", &["system:masters"]),
    (
        "system:basic-user",
        "system:basic-user",
        &["system:authenticated"],
    ),
    (
        "system:discovery",
        "system:discovery",
        &["system:authenticated"],
    ),
    ("system:node", "system:node", &[]),
    (
        "system:public-info-viewer",
        "system:public-info-viewer",
        &["system:authenticated", "system:unauthenticated"],
    ),
];

fn create(state: &State, group: &str, resource: &str, mut object: Value) {
    let found = state.registry.find(group, "v1", resource);
    let resource = found.expect("the built-in registry serves what is bootstrapped");
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    create_trusted(state, &resource, object);
}

/// The service in front of the apiserver, owned field by field by the apiserver itself.
fn kubernetes_service() -> Value {
    let port = json!({
        ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {},
    });
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:component": {}, "f:provider": {}}},
        "f:spec": {
            "f:clusterIP": {},
            "f:internalTrafficPolicy": {},
            "f:ipFamilyPolicy": {},
            "f:ports": {".": {}, "k:{\"port\":443,\"protocol\":\"TCP\"}": port},
            "f:sessionAffinity": {},
            "f:type": {},
        },
    });
    json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
            "managedFields": [{
                "manager": "kube-apiserver",
                "operation": "Update",
                "apiVersion": "v1",
                "time": now(),
                "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }],
        },
        "spec": {
            "clusterIP": "10.0.0.1",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6543}],
        },
    })
}

fn binding(name: &str, role: &str, kind: &str, subjects: &[&str]) -> Value {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|subject| json!({"kind": kind, "apiGroup": RBAC, "name": subject}))
        .collect();
    json!({
        "metadata": metadata(name),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn roles() -> Vec<Value> {
    let role = |name: &str, rules: Value| json!({"metadata": metadata(name), "rules": rules});
    let paths = |paths: &[&str]| json!([{"verbs": ["get"], "nonResourceURLs": paths}]);
    vec![
        role(
            "cluster-admin",
            json!([
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]),
        ),
        role("admin", workload_rules(EDIT)),
        role("edit", workload_rules(EDIT)),
        role("view", workload_rules(VIEW)),
        role(
            "system:basic-user",
            json!([
                {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
                 "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
                {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"],
                 "resources": ["selfsubjectreviews"]},
            ]),
        ),
        role(
            "system:discovery",
            paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ]),
        ),
        role(
            "system:public-info-viewer",
            paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"]),
        ),
        role("system:node", json!([])),
        role(
            "system:node-proxier",
            json!([
                {"verbs": FOLLOW, "apiGroups": [""], "resources": ["services", "endpoints"]},
                {"verbs": VIEW, "apiGroups": [""], "resources": ["nodes"]},
                {"verbs": FOLLOW, "apiGroups": ["discovery.k8s.io"],
                 "resources": ["endpointslices"]},
                {"verbs": FOLLOW, "apiGroups": ["networking.k8s.io"],
                 "resources": ["servicecidrs"]},
                {"verbs": ["create", "patch", "update"], "apiGroups": ["", "events.k8s.io"],
                 "resources": ["events"]},
            ]),
        ),
    ]
}

const FOLLOW: &[&str] = &["list", "watch"];
const VIEW: &[&str] = &["get", "list", "watch"];
const EDIT: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn workload_rules(verbs: &[&str]) -> Value {
    json!([
        {"verbs": verbs, "apiGroups": [""], "resources": [
            "configmaps", "endpoints", "events", "persistentvolumeclaims", "pods", "pods/log",
            "pods/status", "replicationcontrollers", "services", "services/status",
            "serviceaccounts",
        ]},
        {"verbs": VIEW, "apiGroups": [""], "resources": ["namespaces"]},
        {"verbs": verbs, "apiGroups": ["apps", "batch", "autoscaling", "policy"],
         "resources": ["*"]},
        {"verbs": verbs, "apiGroups": ["networking.k8s.io"],
         "resources": ["ingresses", "networkpolicies"]},
        {"verbs": verbs, "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
    ])
}
