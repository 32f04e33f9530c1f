//! The columns of nodes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Column;
use super::builtin::{AGE_COLUMN, column, list, wide};

pub(super) const COLUMNS: &[Column] = &[
    column("Status", "The status of the node", status),
    column("Roles", "The roles of the node", roles),
    AGE_COLUMN,
    column(
        "Version",
        "Kubelet Version reported by the node.",
        |node, _| info(node, "kubeletVersion"),
    ),
    wide("Internal-IP", "Address inside the cluster", |node, _| {
        address(node, "InternalIP")
    }),
    wide("External-IP", "Address outside the cluster", |node, _| {
        address(node, "ExternalIP")
    }),
    wide("OS-Image", "Operating system", |node, _| {
        unknown_if_empty(info(node, "osImage"))
    }),
    wide("Kernel-Version", "Kernel", |node, _| {
        unknown_if_empty(info(node, "kernelVersion"))
    }),
    wide("Container-Runtime", "Container runtime", |node, _| {
        unknown_if_empty(info(node, "containerRuntimeVersion"))
    }),
];

fn status(node: &Value, _: Timestamp) -> Value {
    let ready = list(&node["status"]["conditions"]).find(|condition| condition["type"] == "Ready");
    let mut text = match ready.map(|condition| condition["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    json!(text)
}

fn roles(node: &Value, _: Timestamp) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        json!("<none>")
    } else {
        json!(roles.join(","))
    }
}

fn info(node: &Value, member: &str) -> Value {
    json!(
        node["status"]["nodeInfo"][member]
            .as_str()
            .unwrap_or_default()
    )
}

fn unknown_if_empty(text: Value) -> Value {
    if text == "" { json!("<unknown>") } else { text }
}

fn address(node: &Value, kind: &str) -> Value {
    let mut addresses = list(&node["status"]["addresses"]);
    let found = addresses.find(|address| address["type"] == kind);
    json!(
        found
            .and_then(|address| address["address"].as_str())
            .unwrap_or("<none>")
    )
}
