//! The least of a controller manager: deleted namespaces are emptied and let go, and aggregated
//! cluster roles get the rules of those they select.
//!
//! Owns one loop. It looks for namespaces in deletion, deletes what is in them and takes their
//! finalizer away when nothing is left; pods bound to a node are given no grace then: their
//! kubelets are hollow and may never answer. Rules are joined as `clusterroleaggregation`, 1.36,
//! joins them, of roles selected by `matchLabels`.
//! Refuses everything else a controller manager does.
//!
//! Invariant: a namespace goes only when it is empty.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::server::State;
use super::store::Stored;

/// Between two looks; a namespace lives at most this much longer than it must.
const INTERVAL: Duration = Duration::from_millis(250);

/// Runs until the future is dropped; start it when `profile.controllers` is on.
pub async fn run(state: Arc<State>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        empty_deleted_namespaces(&state);
        aggregate_cluster_roles(&state);
    }
}

/// One look at all cluster roles.
pub(super) fn aggregate_cluster_roles(state: &State) {
    let group = "rbac.authorization.k8s.io";
    let Some(resource) = state.registry.find(group, "v1", "clusterroles") else {
        return;
    };
    let roles = state.store.read_all(&resource, None);
    for role in &roles {
        let selectors = &role.value["aggregationRule"]["clusterRoleSelectors"];
        let Some(selectors) = selectors.as_array() else {
            continue;
        };
        let mut rules: Vec<Value> = Vec::new();
        for selector in selectors {
            let others = roles.iter().filter(|other| other.name != role.name);
            for other in others.filter(|other| has_labels(&other.value, selector)) {
                for rule in other.value["rules"].as_array().into_iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        if role.value["rules"].as_array() != Some(&rules) {
            let mut value = role.value.clone();
            value["rules"] = Value::Array(rules);
            // Written in between: the next look tries again.
            let _ = state.store.update(&resource, value, role.resource_version);
        }
    }
}

fn has_labels(object: &Value, selector: &Value) -> bool {
    let mut wanted = selector["matchLabels"].as_object().into_iter().flatten();
    wanted.all(|(key, value)| object["metadata"]["labels"][key] == *value)
}

/// One look at all namespaces.
pub(super) fn empty_deleted_namespaces(state: &State) {
    let Some(namespaces) = state.registry.find("", "v1", "namespaces") else {
        return;
    };
    for namespace in state.store.read_all(&namespaces, None) {
        if namespace.value["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        if !empty(state, &namespace.name) {
            continue; // finalizers hold something; the next look tries again
        }
        let mut value = namespace.value.clone();
        value["spec"]["finalizers"] = json!([]);
        // Written in between: the next look tries again.
        let _ = state
            .store
            .update(&namespaces, value, namespace.resource_version);
    }
}

/// Deletes everything in a namespace; true when nothing is left.
fn empty(state: &State, namespace: &str) -> bool {
    let mut left = false;
    for resource in state.registry.all() {
        if !resource.namespaced || !resource.allows("delete") {
            continue;
        }
        for stored in state.store.read_all(&resource, Some(namespace)) {
            let pod = resource.kind == "Pod" && resource.custom.is_none();
            let grace = pod.then_some(0);
            let Stored {
                namespace, name, ..
            } = stored.as_ref();
            // Gone already is as good as deleted now.
            let _ = state
                .store
                .delete(&resource, (namespace, name), None, grace);
            left |= state.store.read(&resource, namespace, name).is_some();
        }
    }
    !left
}
