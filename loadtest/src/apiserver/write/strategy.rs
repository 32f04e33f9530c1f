//! What each kind does to an object before it is stored: admission, preparation, validation.
//!
//! Owns the steps between decoding and the store, as the strategies of `pkg/registry` and the few
//! admission plugins whose effects clients of this server see (namespace lifecycle aside, which
//! [`create`](super::create) asks): status is reset or kept, generations count changes of the
//! spec, service addresses are allocated, and the mistakes people make are refused in the words
//! of kube-apiserver. Refuses full validation: the judge trusts its clients further than a real
//! server would.
//!
//! Invariant: status and spec never change in the same write, where a kind has a status.

use serde_json::{Value, json};

use super::defaults::{section, set};
use crate::apiserver::resources::Resource;
use crate::apiserver::status::Cause;

/// Finishes a new object of a resource; `now` is RFC 3339 in seconds.
pub(super) fn prepare_create(resource: &Resource, object: &mut Value, now: &str) {
    if has_status(resource) && resource.kind != "Node" {
        remove(object, "status");
    }
    if has_generation(resource) {
        object["metadata"]["generation"] = json!(1);
    }
    if resource.custom.is_some() {
        return;
    }
    match resource.kind.as_str() {
        "Pod" => new_pod(object),
        "Namespace" => {
            let finalizers = section(section_of(object, "spec"), "finalizers");
            *finalizers = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        "Node" => {
            let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
            let spec = section_of(object, "spec");
            set(spec, "taints", json!([]));
            if let Some(taints) = spec["taints"].as_array_mut()
                && !taints.iter().any(|known| known["key"] == taint["key"])
            {
                taints.push(taint);
            }
        }
        "PersistentVolumeClaim" => {
            protect(object, "kubernetes.io/pvc-protection");
            object["status"] = json!({"phase": "Pending"});
        }
        "PersistentVolume" => {
            protect(object, "kubernetes.io/pv-protection");
            object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now});
        }
        "Job" => new_job(object),
        "CustomResourceDefinition" => {
            let versions = object["spec"]["versions"].as_array().into_iter().flatten();
            let stored = versions.filter(|version| version["storage"] == true);
            let stored: Vec<_> = stored.map(|version| version["name"].clone()).collect();
            object["status"] = json!({
                "conditions": null,
                "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": stored,
            });
        }
        _ => {}
    }
}

/// Carries over from `old` what a write through `subresource` may not change, and counts the
/// generation.
pub(super) fn prepare_update(
    resource: &Resource,
    subresource: &str,
    old: &Value,
    object: &mut Value,
) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        restore(&mut object["metadata"], &old["metadata"], field);
    }
    restore(&mut object["metadata"], &old["metadata"], "generation");
    match subresource {
        "" if has_status(resource) => restore(object, old, "status"),
        "" => {}
        "finalize" => {
            let finalizers = object["spec"]["finalizers"].clone();
            restore(object, old, "status");
            restore(object, old, "spec");
            section_of(object, "spec")["finalizers"] = finalizers;
        }
        "approval" => {
            let (conditions, certificate) = (
                object["status"]["conditions"].clone(),
                old["status"]["certificate"].clone(),
            );
            restore(object, old, "spec");
            restore(object, old, "status");
            section_of(object, "status")["conditions"] = conditions;
            section_of(object, "status")["certificate"] = certificate;
        }
        "ephemeralcontainers" | "resize" => restore(object, old, "status"),
        _ => keep_all_but_status(resource, old, object),
    }
    if subresource.is_empty() || matches!(subresource, "resize" | "ephemeralcontainers") {
        match resource.kind.as_str() {
            "Namespace" => {
                let finalizers = old["spec"]["finalizers"].clone();
                section_of(object, "spec")["finalizers"] = finalizers;
            }
            "Service" => keep_addresses(old, object),
            _ => {}
        }
        if has_generation(resource) && spec_changed(resource, old, object) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
    }
}

fn keep_all_but_status(resource: &Resource, old: &Value, object: &mut Value) {
    let status = object.get("status").cloned();
    let metadata = object["metadata"].clone();
    let mut kept = old.clone();
    kept["apiVersion"] = object["apiVersion"].clone();
    kept["kind"] = object["kind"].clone();
    match status {
        Some(status) => kept["status"] = status,
        None => remove(&mut kept, "status"),
    }
    let old_metadata = std::mem::replace(&mut kept["metadata"], metadata);
    *object = kept;
    let fixed: &[&str] = if resource.custom.is_some() || resource.group == "apps" {
        &[
            "labels",
            "annotations",
            "finalizers",
            "ownerReferences",
            "generation",
        ]
    } else {
        &["ownerReferences", "generation"]
    };
    for field in fixed {
        restore(&mut object["metadata"], &old_metadata, field);
    }
}

/// Whether a change counts: any field besides metadata and status.
fn spec_changed(resource: &Resource, old: &Value, new: &Value) -> bool {
    if resource.custom.is_none() && new.get("spec").is_some() {
        return old["spec"] != new["spec"];
    }
    let content = |object: &Value| {
        let mut object = object.clone();
        for field in ["metadata", "status", "apiVersion", "kind"] {
            remove(&mut object, field);
        }
        object
    };
    content(old) != content(new)
}

/// Whether the resource has a status that only its subresource may write.
pub(super) fn has_status(resource: &Resource) -> bool {
    resource
        .subresources
        .iter()
        .any(|subresource| subresource == "status")
}

/// Whether objects count the changes of their spec.
fn has_generation(resource: &Resource) -> bool {
    if resource.custom.is_some() {
        return true;
    }
    matches!(
        resource.kind.as_str(),
        "Pod"
            | "Deployment"
            | "ReplicaSet"
            | "DaemonSet"
            | "StatefulSet"
            | "ReplicationController"
            | "Job"
            | "CronJob"
            | "NetworkPolicy"
            | "Ingress"
            | "IngressClass"
            | "PodDisruptionBudget"
            | "EndpointSlice"
            | "CustomResourceDefinition"
            | "FlowSchema"
            | "PriorityLevelConfiguration"
            | "PriorityClass"
            | "MutatingWebhookConfiguration"
            | "ValidatingWebhookConfiguration"
            | "MutatingAdmissionPolicy"
            | "MutatingAdmissionPolicyBinding"
            | "ValidatingAdmissionPolicy"
            | "ValidatingAdmissionPolicyBinding"
            | "DeviceClass"
            | "ResourceSlice"
    )
}

/// Whether an update without a resource version is taken as "whatever it is now".
pub(super) fn allows_unconditional_update(resource: &Resource) -> bool {
    resource.custom.is_none()
        && !matches!(
            resource.kind.as_str(),
            "Lease"
                | "ServiceAccount"
                | "CSIDriver"
                | "CSINode"
                | "CustomResourceDefinition"
                | "VolumeAttachment"
                | "PodDisruptionBudget"
                | "RuntimeClass"
                | "APIService"
                | "ResourceSlice"
        )
}

/// Whether a PUT of a missing object creates it.
pub(super) fn allows_create_on_update(resource: &Resource) -> bool {
    matches!(
        resource.kind.as_str(),
        "Lease"
            | "Endpoints"
            | "Service"
            | "Event"
            | "LimitRange"
            | "Role"
            | "RoleBinding"
            | "ClusterRole"
            | "ClusterRoleBinding"
    )
}

/// Whether a DELETE answers with the object instead of a Status.
pub(super) fn returns_deleted(resource: &Resource) -> bool {
    matches!(
        resource.kind.as_str(),
        "Pod"
            | "Service"
            | "ServiceAccount"
            | "PersistentVolume"
            | "PersistentVolumeClaim"
            | "PodTemplate"
            | "ResourceQuota"
            | "StorageClass"
            | "CSIDriver"
            | "CSINode"
            | "VolumeAttachment"
    )
}

/// What the strategy of a kind warns the creator of, as far as a recording shows it.
pub(super) fn warning(resource: &Resource, object: &Value) -> Option<&'static str> {
    let spec = &object["spec"];
    let tokens = spec["tokenRequests"]
        .as_array()
        .is_some_and(|tokens| !tokens.is_empty());
    let unset = spec["serviceAccountTokenInSecrets"].is_null();
    (resource.kind == "CSIDriver" && tokens && unset).then_some(
        "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true \
         to prevent possible logging of tokens in volume attributes",
    )
}

/// What is wrong with an object, cause by cause.
pub(super) fn validate(resource: &Resource, object: &Value) -> Vec<Cause> {
    let required = |field: &str| Cause::field("FieldValueRequired", "Required value", field);
    let spec = &object["spec"];
    let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    let mut causes = Vec::new();
    if resource.custom.is_some() {
        return causes;
    }
    match resource.kind.as_str() {
        "Pod" => containers(spec, "spec", &mut causes),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => {
            if !spec["selector"].is_object() {
                causes.push(required("spec.selector"));
            }
            if let Some(cause) = selector_mismatch(spec) {
                causes.push(cause);
            }
            containers(&spec["template"]["spec"], "spec.template.spec", &mut causes);
        }
        "Lease"
            if spec["leaseDurationSeconds"]
                .as_i64()
                .is_some_and(|seconds| seconds <= 0) =>
        {
            let text = format!(
                "Invalid value: {}: must be greater than 0",
                spec["leaseDurationSeconds"]
            );
            causes.push(Cause::field(
                "FieldValueInvalid",
                text,
                "spec.leaseDurationSeconds",
            ));
        }
        "Service"
            if spec["type"] != "ExternalName"
                && spec["clusterIP"] != "None"
                && empty(&spec["ports"]) =>
        {
            causes.push(required("spec.ports"));
        }
        "CustomResourceDefinition" => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let wanted = format!(
                "{}.{}",
                text(&spec["names"]["plural"]),
                text(&spec["group"])
            );
            let name = text(&object["metadata"]["name"]);
            if name != wanted {
                let text = format!(
                    "Invalid value: \"{name}\": must be spec.names.plural+\".\"+spec.group"
                );
                causes.push(Cause::field("FieldValueInvalid", text, "metadata.name"));
            }
        }
        _ => {}
    }
    causes
}

fn containers(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let list = spec["containers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if list.is_empty() {
        let field = format!("{path}.containers");
        causes.push(Cause::field("FieldValueRequired", "Required value", &field));
    }
    for (index, container) in list.iter().enumerate() {
        for field in ["name", "image"] {
            if container[field].as_str().is_none_or(str::is_empty) {
                let field = format!("{path}.containers[{index}].{field}");
                causes.push(Cause::field("FieldValueRequired", "Required value", &field));
            }
        }
    }
}

fn selector_mismatch(spec: &Value) -> Option<Cause> {
    let wanted = spec["selector"]["matchLabels"].as_object()?;
    let labels = &spec["template"]["metadata"]["labels"];
    if wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
    {
        return None;
    }
    let text = format!("Invalid value: {labels}: `selector` does not match template `labels`");
    Some(Cause::field(
        "FieldValueInvalid",
        text,
        "spec.template.metadata.labels",
    ))
}

fn new_pod(pod: &mut Value) {
    let quality = quality_of_service(&pod["spec"]);
    let spec = section_of(pod, "spec");
    set(spec, "priority", json!(0));
    set(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    set(spec, "tolerations", json!([]));
    if let Some(tolerations) = spec["tolerations"].as_array_mut() {
        for key in [
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
        ] {
            let tolerated = tolerations.iter().any(|toleration| {
                toleration["key"] == key
                    || (toleration["key"].is_null() && toleration["operator"] == "Exists")
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }));
            }
        }
    }
    pod["status"] = json!({"phase": "Pending", "qosClass": quality});
}

/// The class a pod's requests and limits put it in.
fn quality_of_service(spec: &Value) -> &'static str {
    let list = |kind: &str| spec[kind].as_array().cloned().unwrap_or_default();
    let mut containers = list("containers");
    containers.extend(list("initContainers"));
    let amount = |container: &Value, kind: &str, resource: &str| {
        container["resources"][kind].get(resource).cloned()
    };
    let mut any = false;
    let mut all = true;
    for container in &containers {
        for resource in ["cpu", "memory"] {
            let limit = amount(container, "limits", resource);
            let request = amount(container, "requests", resource);
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && limit == request;
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn new_job(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (
        job["metadata"]["uid"].clone(),
        job["metadata"]["name"].clone(),
    );
    let labels = section(
        section(section(section_of(job, "spec"), "template"), "metadata"),
        "labels",
    );
    labels["batch.kubernetes.io/controller-uid"] = uid.clone();
    labels["batch.kubernetes.io/job-name"] = name.clone();
    labels["controller-uid"] = uid.clone();
    labels["job-name"] = name;
    job["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
}

fn protect(object: &mut Value, finalizer: &str) {
    let metadata = section_of(object, "metadata");
    set(metadata, "finalizers", json!([]));
    if let Some(finalizers) = metadata["finalizers"].as_array_mut()
        && !finalizers.iter().any(|known| known == finalizer)
    {
        finalizers.push(json!(finalizer));
    }
}

/// What an update may not change: the addresses of a service (as
/// `validateUpgradeDowngradeClusterIPs`, 1.36).
pub(super) fn validate_change(resource: &Resource, old: &Value, object: &Value) -> Vec<Cause> {
    let is_addressed = |service: &Value| service["spec"]["type"] != "ExternalName";
    let is_service = resource.kind == "Service" && resource.custom.is_none();
    if !is_service || !is_addressed(old) || !is_addressed(object) {
        return Vec::new();
    }
    let (before, after) = (&old["spec"]["clusterIPs"], &object["spec"]["clusterIPs"]);
    let count = |addresses: &Value| addresses.as_array().map_or(0, Vec::len);
    if count(before) != count(after) {
        return Vec::new(); // a second address family comes or goes
    }
    let changed = (0..count(before)).filter(|index| before[index] != after[index]);
    changed
        .map(|index| {
            let text = format!("Invalid value: {after}: may not change once set");
            Cause::field(
                "FieldValueInvalid",
                text,
                &format!("spec.clusterIPs[{index}]"),
            )
        })
        .collect()
}

/// An update that leaves a service's addresses out keeps them.
fn keep_addresses(old: &Value, object: &mut Value) {
    let spec = section_of(object, "spec");
    for field in [
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "healthCheckNodePort",
    ] {
        if let Some(value) = old["spec"].get(field) {
            set(spec, field, value.clone());
        }
    }
}

fn section_of<'a>(object: &'a mut Value, member: &str) -> &'a mut Value {
    section(object, member)
}

fn restore(object: &mut Value, old: &Value, member: &str) {
    match old.get(member) {
        Some(value) => object[member] = value.clone(),
        None => remove(object, member),
    }
}

pub(super) fn remove(object: &mut Value, member: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resources::Registry;

    fn resource(name: &str) -> Resource {
        let registry = Registry::builtin();
        let found = registry
            .find("", "v1", name)
            .or_else(|| registry.find("apps", "v1", name));
        found.unwrap().as_ref().clone()
    }

    #[test]
    fn spec_and_status_are_written_apart() {
        let old = json!({"metadata": {"generation": 1}, "spec": {"a": 1}, "status": {"s": 1}});
        let new = json!({"metadata": {}, "spec": {"a": 2}, "status": {"s": 2}});
        let mut main = new.clone();
        prepare_update(&resource("pods"), "", &old, &mut main);
        assert_eq!(main["status"]["s"], 1);
        assert_eq!(main["metadata"]["generation"], 2);
        let mut status = new;
        prepare_update(&resource("pods"), "status", &old, &mut status);
        assert_eq!(
            (&status["spec"]["a"], &status["status"]["s"]),
            (&json!(1), &json!(2))
        );
        assert_eq!(status["metadata"]["generation"], 1);
    }

    #[test]
    fn a_status_write_leaves_labels_of_apps_alone() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {}});
        let mut new = json!({"metadata": {"labels": {"a": "2"}}, "status": {"replicas": 1}});
        prepare_update(&resource("deployments"), "status", &old, &mut new);
        assert_eq!(new["metadata"]["labels"]["a"], "1");
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let class = |resources: Value| {
            quality_of_service(&json!({"containers": [{"resources": resources}]}))
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            class(json!({"requests": both, "limits": both})),
            "Guaranteed"
        );
    }
}
