//! What a node may write: the rules of admission plugin NodeRestriction that matter to proxies.
//!
//! Owns the checks authorization cannot make because they need the object: a node writes its own
//! Node, Lease and CSINode, the status of pods bound to it, and creates nothing but mirror pods, as
//! `plugin/pkg/admission/noderestriction`, 1.36. Refuses the finer rules (labels, taints, tokens).
//!
//! Invariant: users that are no nodes pass.

use http::Method;
use serde_json::Value;

use super::Request;
use crate::apiserver::status::{Details, Status};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Refuses what a node may not write; `object` is what is sent, where a whole object is.
pub(super) fn check(request: &Request<'_>, object: Option<&Value>) -> Result<(), Status> {
    let user = &request.exchange.user;
    let node = user.name.strip_prefix("system:node:").unwrap_or_default();
    if node.is_empty() || !user.is_in("system:nodes") || request.resource.custom.is_some() {
        return Ok(());
    }
    let sent = object.and_then(|object| object["metadata"]["name"].as_str());
    let name = if request.name().is_empty() {
        sent.unwrap_or_default()
    } else {
        request.name()
    };
    let refuse = |why: String| Err(forbidden(request, name, &why));
    let method = &request.exchange.method;
    match (
        request.resource.resource.as_str(),
        request.exchange.info.subresource.as_str(),
    ) {
        ("nodes", _) if name != node => refuse(format!(
            "node \"{node}\" is not allowed to modify node \"{name}\""
        )),
        ("leases" | "csinodes", "") if name != node => {
            let what = if request.resource.resource == "leases" {
                "node lease"
            } else {
                "CSINode"
            };
            refuse(format!(
                "can only access {what} with the same name as the requesting node"
            ))
        }
        ("pods", "") if *method == Method::POST => {
            let annotations = object.map(|object| &object["metadata"]["annotations"]);
            if annotations.is_some_and(|annotations| !annotations[MIRROR].is_null()) {
                return Ok(());
            }
            refuse(format!(
                "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror \
                 pods"
            ))
        }
        ("pods", subresource) if !on_node(request, node) => refuse(match subresource {
            "status" => format!(
                "node \"{node}\" can only update pod status for pods with spec.nodeName set to \
                 itself"
            ),
            "eviction" => {
                format!("node {node} can only evict pods with spec.nodeName set to itself")
            }
            _ => format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"),
        }),
        _ => Ok(()),
    }
}

/// Whether the pod is bound to the node; a missing one is left to answer 404.
fn on_node(request: &Request<'_>, node: &str) -> bool {
    request
        .read()
        .map_or(true, |pod| pod.value["spec"]["nodeName"] == node)
}

fn forbidden(request: &Request<'_>, name: &str, why: &str) -> Status {
    let resource = request.resource;
    let details = Details::object(&resource.group, &resource.resource, name);
    Status::forbidden(
        format!("{} \"{name}\" is forbidden: {why}", resource.qualified()),
        details,
    )
}
