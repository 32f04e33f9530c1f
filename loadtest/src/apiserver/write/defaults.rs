//! Defaults of the built-in kinds, as their API versions define them.
//!
//! Owns what decoding an object adds before anybody looks at it; ownership of fields is reckoned
//! with defaults in place. What a strategy or an admission plugin adds later is in
//! [`strategy`](super::strategy). Kinds whose defaults no client of this server can see are left
//! out.
//!
//! Invariant: applying defaults twice changes nothing the second time.

mod pods;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Fills in the defaults of an object of `kind`.
pub(super) fn apply(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => pods::pod(object),
        "Namespace" => namespace(object),
        "Service" => service(object),
        "Secret" => secret(object),
        "PersistentVolume" => {
            set(spec(object), "volumeMode", json!("Filesystem"));
            set(
                spec(object),
                "persistentVolumeReclaimPolicy",
                json!("Retain"),
            );
        }
        "PersistentVolumeClaim" => set(spec(object), "volumeMode", json!("Filesystem")),
        "Endpoints" => each(&mut object["subsets"], |subset| {
            each(&mut subset["ports"], |port| {
                set(port, "protocol", json!("TCP"))
            });
        }),
        "EndpointSlice" => each(&mut object["ports"], |port| {
            set(port, "protocol", json!("TCP"));
            set(port, "name", json!(""));
        }),
        "Deployment"
        | "ReplicaSet"
        | "DaemonSet"
        | "StatefulSet"
        | "ReplicationController"
        | "Job"
        | "CronJob" => workload(kind, object),
        "HorizontalPodAutoscaler" => set(spec(object), "minReplicas", json!(1)),
        "NetworkPolicy" => network_policy(object),
        "CSIDriver" => csi_driver(object),
        "StorageClass" => {
            set(object, "reclaimPolicy", json!("Delete"));
            set(object, "volumeBindingMode", json!("Immediate"));
        }
        "PriorityClass" => set(object, "preemptionPolicy", json!("PreemptLowerPriority")),
        "RoleBinding" | "ClusterRoleBinding" => role_binding(object),
        "CustomResourceDefinition" => definition(object),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhooks(kind, object),
        "FlowSchema" => set(spec(object), "matchingPrecedence", json!(1000)),
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if name.is_string() {
        let labels = section(&mut object["metadata"], "labels");
        labels["kubernetes.io/metadata.name"] = name;
    }
}

fn service(object: &mut Value) {
    let spec = spec(object);
    set(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        set(
            spec,
            "sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10800}}),
        );
    }
    set(spec, "type", json!("ClusterIP"));
    each(&mut spec["ports"], |port| {
        set(port, "protocol", json!("TCP"));
        let own = port["port"].clone();
        set(port, "targetPort", own);
    });
    let external = matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    if external {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if spec["type"] == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    if spec["type"] != "ExternalName" {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
}

fn secret(object: &mut Value) {
    set(object, "type", json!("Opaque"));
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|o| o.remove("stringData"))
    else {
        return;
    };
    let data = section(object, "data");
    for (key, value) in plain {
        data[key] = json!(STANDARD.encode(value.as_str().unwrap_or_default()));
    }
}

fn workload(kind: &str, object: &mut Value) {
    if kind == "DaemonSet" {
        let annotations = section(&mut object["metadata"], "annotations");
        set(
            annotations,
            "deprecated.daemonset.template.generation",
            json!("1"),
        );
    }
    let spec = spec(object);
    let percent = json!("25%");
    match kind {
        "Deployment" => {
            set(spec, "replicas", json!(1));
            set(spec, "revisionHistoryLimit", json!(10));
            set(spec, "progressDeadlineSeconds", json!(600));
            let strategy = section(spec, "strategy");
            set(strategy, "type", json!("RollingUpdate"));
            if strategy["type"] == "RollingUpdate" {
                let rolling = section(strategy, "rollingUpdate");
                set(rolling, "maxUnavailable", percent.clone());
                set(rolling, "maxSurge", percent);
            }
        }
        "ReplicaSet" | "ReplicationController" => set(spec, "replicas", json!(1)),
        "DaemonSet" => {
            set(spec, "revisionHistoryLimit", json!(10));
            let strategy = section(spec, "updateStrategy");
            set(strategy, "type", json!("RollingUpdate"));
            if strategy["type"] == "RollingUpdate" {
                let rolling = section(strategy, "rollingUpdate");
                set(rolling, "maxUnavailable", json!(1));
                set(rolling, "maxSurge", json!(0));
            }
        }
        "StatefulSet" => {
            set(spec, "replicas", json!(1));
            set(spec, "revisionHistoryLimit", json!(10));
            set(spec, "podManagementPolicy", json!("OrderedReady"));
            let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
            set(spec, "persistentVolumeClaimRetentionPolicy", retain);
            let strategy = section(spec, "updateStrategy");
            set(strategy, "type", json!("RollingUpdate"));
            if strategy["type"] == "RollingUpdate" {
                set(section(strategy, "rollingUpdate"), "partition", json!(0));
            }
        }
        "Job" => job(spec),
        "CronJob" => {
            set(spec, "concurrencyPolicy", json!("Allow"));
            set(spec, "suspend", json!(false));
            set(spec, "successfulJobsHistoryLimit", json!(3));
            set(spec, "failedJobsHistoryLimit", json!(1));
            pods::template(&mut spec["jobTemplate"]["spec"]["template"]);
            return;
        }
        _ => {}
    }
    pods::template(&mut spec["template"]);
}

fn job(spec: &mut Value) {
    let neither = spec["completions"].is_null() && spec["parallelism"].is_null();
    if neither {
        set(spec, "completions", json!(1));
    }
    set(spec, "parallelism", json!(1));
    set(spec, "backoffLimit", json!(6));
    set(spec, "completionMode", json!("NonIndexed"));
    set(spec, "suspend", json!(false));
    set(spec, "podReplacementPolicy", json!("TerminatingOrFailed"));
    set(spec, "manualSelector", json!(false));
}

fn network_policy(object: &mut Value) {
    let spec = spec(object);
    for direction in ["ingress", "egress"] {
        each(&mut spec[direction], |rule| {
            each(&mut rule["ports"], |port| {
                set(port, "protocol", json!("TCP"))
            });
        });
    }
    let mut types = vec!["Ingress"];
    if spec["egress"]
        .as_array()
        .is_some_and(|rules| !rules.is_empty())
    {
        types.push("Egress");
    }
    set(spec, "policyTypes", json!(types));
}

fn csi_driver(object: &mut Value) {
    let spec = spec(object);
    set(spec, "attachRequired", json!(true));
    set(spec, "podInfoOnMount", json!(false));
    set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    set(spec, "storageCapacity", json!(false));
    set(spec, "fsGroupPolicy", json!("ReadWriteOnceWithFSType"));
    set(spec, "requiresRepublish", json!(false));
    set(spec, "seLinuxMount", json!(false));
}

fn role_binding(object: &mut Value) {
    let group = json!("rbac.authorization.k8s.io");
    set(&mut object["roleRef"], "apiGroup", group.clone());
    each(&mut object["subjects"], |subject| {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set(subject, "apiGroup", group.clone());
        }
    });
}

fn definition(object: &mut Value) {
    let spec = spec(object);
    set(section(spec, "conversion"), "strategy", json!("None"));
    let names = section(spec, "names");
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    set(names, "singular", json!(kind.to_lowercase()));
    set(names, "listKind", json!(format!("{kind}List")));
}

fn webhooks(kind: &str, object: &mut Value) {
    each(&mut object["webhooks"], |webhook| {
        set(webhook, "failurePolicy", json!("Fail"));
        set(webhook, "matchPolicy", json!("Equivalent"));
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        set(webhook, "timeoutSeconds", json!(10));
        if kind.starts_with("Mutating") {
            set(webhook, "reinvocationPolicy", json!("Never"));
        }
        each(&mut webhook["rules"], |rule| set(rule, "scope", json!("*")));
        if webhook["clientConfig"]["service"].is_object() {
            set(&mut webhook["clientConfig"]["service"], "port", json!(443));
        }
    });
}

/// Sets a member that is absent or null.
pub(super) fn set(object: &mut Value, member: &str, value: Value) {
    if object.is_null() {
        *object = json!({});
    }
    if let Some(object) = object.as_object_mut()
        && object.get(member).is_none_or(Value::is_null)
    {
        object.insert(member.to_owned(), value);
    }
}

/// A member that is an object, made if absent.
pub(super) fn section<'a>(object: &'a mut Value, member: &str) -> &'a mut Value {
    set(object, member, Value::Object(Map::new()));
    &mut object[member]
}

fn spec(object: &mut Value) -> &mut Value {
    section(object, "spec")
}

/// Visits the items of a list; nothing happens for anything else, and nothing is created.
pub(super) fn each(list: &mut Value, visit: impl FnMut(&mut Value)) {
    list.as_array_mut().into_iter().flatten().for_each(visit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_idempotent() {
        for (kind, object) in [
            (
                "Pod",
                json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
            ),
            (
                "Deployment",
                json!({"spec": {"template": {"spec": {"containers": [{}]}}}}),
            ),
            (
                "Service",
                json!({"spec": {"ports": [{"port": 80}], "type": "NodePort"}}),
            ),
            ("Secret", json!({"stringData": {"a": "b"}})),
            ("Namespace", json!({"metadata": {"name": "x"}})),
            (
                "CustomResourceDefinition",
                json!({"spec": {"names": {"kind": "W"}}}),
            ),
        ] {
            let (mut once, mut twice) = (object.clone(), object);
            apply(kind, &mut once);
            apply(kind, &mut twice);
            apply(kind, &mut twice);
            assert_eq!(once, twice, "{kind}");
        }
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"stringData": {"k": "s1"}, "data": {"k": "old", "l": "x"}});
        apply("Secret", &mut secret);
        assert_eq!(
            secret,
            json!({"type": "Opaque", "data": {"k": "czE=", "l": "x"}})
        );
    }
}
