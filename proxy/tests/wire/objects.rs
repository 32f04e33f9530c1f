//! Objects that tests put into the embedded apiserver past the wire, and what they read back.
//!
//! Owns the few shapes that several files need: a ConfigMap with a number in it, and a user's right
//! to read them. Refuses to send anything: what goes over the wire is the tests' own.

use anyhow::Context as _;
use serde_json::{Value, json};
use watershed_loadtest::apiserver::Apiserver;

/// Writes an object of a built-in resource, and returns its version.
pub(crate) fn load(apiserver: &Apiserver, (group, resource): (&str, &str), object: Value) -> u64 {
    let found = apiserver.registry().find(group, "v1", resource);
    let found = found.expect("it is built in");
    apiserver.store().load(&found, object).resource_version
}

/// Writes a ConfigMap of namespace `default` that holds a number, and returns its version.
pub(crate) fn put(apiserver: &Apiserver, name: &str, value: u64) -> u64 {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name, "namespace": "default", "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "data": {"value": value.to_string()},
    });
    load(apiserver, ("", "configmaps"), object)
}

/// Lets users get, list and watch the ConfigMaps of one namespace.
pub(crate) fn let_read(apiserver: &Apiserver, namespace: &str, users: &[&str]) {
    let rbac = "rbac.authorization.k8s.io";
    let metadata = json!({"name": "reader", "namespace": namespace, "uid": "u"});
    let rule = json!({
        "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"],
    });
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": metadata,
        "rules": [rule]});
    let subjects: Vec<Value> = users
        .iter()
        .map(|user| json!({"apiGroup": rbac, "kind": "User", "name": user}))
        .collect();
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding",
        "metadata": metadata, "subjects": subjects,
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"}});
    load(apiserver, (rbac, "roles"), role);
    load(apiserver, (rbac, "rolebindings"), binding);
}

/// The version of an object or a list.
pub(crate) fn version(object: &Value) -> anyhow::Result<u64> {
    let version = object["metadata"]["resourceVersion"].as_str();
    Ok(version.context("no version")?.parse()?)
}

/// The version of the object with that name in a list.
pub(crate) fn listed(list: &Value, name: &str) -> anyhow::Result<u64> {
    let items = list["items"].as_array().context("no items")?;
    let found = items.iter().find(|item| item["metadata"]["name"] == name);
    version(found.with_context(|| format!("{name} is not listed"))?)
}
