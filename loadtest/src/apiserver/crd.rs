//! CustomResourceDefinitions: they change what is served.
//!
//! Owns the conditions of a CRD (names accepted, established), and the comings and goings of its
//! resources in the registry. A deleted CRD takes its objects along, one by one, before it goes.
//! Refuses conversion (the versions of a CRD share their fields) and schemas beyond what the
//! printer columns and selectable fields need.
//!
//! Invariant: a resource is served only while its CRD is stored and established.

use serde_json::{Value, json};

use super::resources::{Registry, Resource};
use super::server::State;
use super::store::Stored;
use super::write::now;

/// Brings the registry in line with the stored CRD of this name (`widgets.example.com`); call it
/// after any write, load or deletion of a CRD. Ends the watches of what is no longer served.
pub fn changed(state: &State, name: &str) {
    let Some(crds) = state
        .registry
        .find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    else {
        return;
    };
    let Some(crd) = state.store.read(&crds, "", name) else {
        retire(state, name);
        return;
    };
    if is_deleted(&crd.value) {
        retire(state, name);
        let mut freed = crd.value.clone();
        if let Some(finalizers) = freed["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != CLEANUP);
        }
        // Somebody else's write in between calls again.
        let _ = state.store.update(&crds, freed, crd.resource_version);
        return;
    }
    if !is_established(&crd.value) {
        let established = establish(&crd);
        // A writer in between calls again, so a conflict here loses nothing.
        let _ = state.store.update(&crds, established, crd.resource_version);
    }
    serve(state, name, &crd.value);
}

const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether deleting this object means marking a CRD first.
pub(super) fn awaits_cleanup(resource: &Resource, stored: &Stored) -> bool {
    resource.kind == "CustomResourceDefinition"
        && resource.custom.is_none()
        && !is_deleted(&stored.value)
}

/// A CRD on its way out: deletion time, finalizer and condition.
pub(super) fn marked_for_deletion(crd: &Stored) -> Value {
    let mut value = crd.value.clone();
    let now = now();
    value["metadata"]["deletionTimestamp"] = json!(now);
    let finalizers = value["metadata"]["finalizers"].as_array();
    let mut finalizers = finalizers.cloned().unwrap_or_default();
    finalizers.push(json!(CLEANUP));
    value["metadata"]["finalizers"] = json!(finalizers);
    if let Some(conditions) = value["status"]["conditions"].as_array_mut() {
        conditions.push(json!({
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion \
                        will begin soon",
        }));
    }
    value
}

fn is_deleted(crd: &Value) -> bool {
    !crd["metadata"]["deletionTimestamp"].is_null()
}

fn is_established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

/// The CRD with its names accepted and both conditions true.
fn establish(crd: &Stored) -> Value {
    let mut value = crd.value.clone();
    let now = now();
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": "True",
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        })
    };
    value["status"]["conditions"] = json!([
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition(
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted"
        ),
    ]);
    value["status"]["acceptedNames"] = value["spec"]["names"].clone();
    if let Some(entries) = value["metadata"]["managedFields"].as_array() {
        let mut entries = entries.clone();
        entries.push(own_entry(&value["status"]["acceptedNames"], &now));
        value["metadata"]["managedFields"] = json!(entries);
    }
    value
}

/// The server's ownership of the status it sets.
fn own_entry(names: &Value, now: &str) -> Value {
    let names = names.as_object().into_iter().flatten();
    let names: serde_json::Map<String, Value> = names
        .map(|(name, _)| (format!("f:{name}"), json!({})))
        .collect();
    let condition = json!({
        ".": {}, "f:lastTransitionTime": {}, "f:message": {}, "f:reason": {}, "f:status": {},
        "f:type": {},
    });
    json!({
        "manager": "kube-apiserver",
        "operation": "Update",
        "apiVersion": "apiextensions.k8s.io/v1",
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {
            "f:acceptedNames": names,
            "f:conditions": {
                "k:{\"type\":\"Established\"}": condition,
                "k:{\"type\":\"NamesAccepted\"}": condition,
            },
        }},
        "subresource": "status",
    })
}

/// Adds the served versions, starts over with those of a changed CRD and removes the others.
fn serve(state: &State, name: &str, crd: &Value) {
    let wanted = Registry::from_crd(crd);
    let served = state.registry.all().into_iter().filter(|resource| {
        resource
            .custom
            .as_ref()
            .is_some_and(|custom| custom.crd == name)
    });
    for resource in served {
        if !wanted
            .iter()
            .any(|wanted| wanted.version == resource.version)
        {
            state
                .registry
                .remove(&resource.group, &resource.version, &resource.resource);
            state.store.close(&resource);
            state.store.forget(&resource);
        }
    }
    for resource in wanted {
        let old = state
            .registry
            .find(&resource.group, &resource.version, &resource.resource);
        let generation = |of: &Resource| of.custom.as_ref().map(|custom| custom.generation);
        match old {
            Some(old) if generation(&old) == generation(&resource) => {}
            // As apiextensions `customresource_handler.go`, 1.36: another spec is another storage,
            // with a cache of its own.
            Some(old) => {
                state.registry.add(resource);
                state.store.close(&old);
                state.store.forget(&old);
            }
            None => {
                state.registry.add(resource);
            }
        }
    }
}

/// Stops serving everything of a CRD.
fn retire(state: &State, name: &str) {
    for resource in state.registry.all() {
        if resource
            .custom
            .as_ref()
            .is_none_or(|custom| custom.crd != name)
        {
            continue;
        }
        for stored in state.store.read_all(&resource, None) {
            // What a finalizer holds goes when the finalizer does.
            let key = (stored.namespace.as_str(), stored.name.as_str());
            let _ = state.store.delete(&resource, key, None, None);
        }
        state
            .registry
            .remove(&resource.group, &resource.version, &resource.resource);
        state.store.close(&resource);
        state.store.forget(&resource);
    }
}
