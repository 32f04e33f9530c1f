//! Defaults of pods and of the templates pods are made from.
//!
//! Invariant: a template gets exactly what a pod gets, except the defaults of the pod itself.

use serde_json::{Value, json};

use super::{each, section, set};

/// A pod: its spec, and what only pods have.
pub(super) fn pod(object: &mut Value) {
    let spec = section(object, "spec");
    pod_spec(spec);
    set(spec, "enableServiceLinks", json!(true));
    for kind in ["containers", "initContainers"] {
        each(&mut spec[kind], requests_from_limits);
    }
}

/// A pod template inside a workload.
pub(super) fn template(template: &mut Value) {
    if template.is_object() {
        pod_spec(section(template, "spec"));
    }
}

fn pod_spec(spec: &mut Value) {
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        if spec[kind].is_array() {
            each(&mut spec[kind], container);
        } else if let Some(spec) = spec.as_object_mut() {
            spec.remove(kind);
        }
    }
    each(&mut spec["volumes"], volume);
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|_, value| !value.is_null());
    }
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", json!("default-scheduler"));
}

fn container(container: &mut Value) {
    set(
        container,
        "terminationMessagePath",
        json!("/dev/termination-log"),
    );
    set(container, "terminationMessagePolicy", json!("File"));
    let image = container["image"].as_str().unwrap_or_default();
    let policy = if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    set(container, "imagePullPolicy", json!(policy));
    if let Some(ports) = container.get_mut("ports") {
        each(ports, |port| set(port, "protocol", json!("TCP")));
    }
    if let Some(env) = container.get_mut("env") {
        each(env, |variable| {
            if variable.pointer("/valueFrom/fieldRef").is_some() {
                set(
                    &mut variable["valueFrom"]["fieldRef"],
                    "apiVersion",
                    json!("v1"),
                );
            }
        });
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(kind).filter(|probe| probe.is_object()) {
            self::probe(probe);
        }
    }
}

fn probe(probe: &mut Value) {
    set(probe, "timeoutSeconds", json!(1));
    set(probe, "periodSeconds", json!(10));
    set(probe, "successThreshold", json!(1));
    set(probe, "failureThreshold", json!(3));
    if let Some(get) = probe.get_mut("httpGet") {
        set(get, "path", json!("/"));
        set(get, "scheme", json!("HTTP"));
    }
}

/// An image without a tag, or with the tag `latest`, is pulled always; a digest is a tag.
fn is_latest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains('@') {
        return false;
    }
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn volume(volume: &mut Value) {
    for kind in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(kind).filter(|source| source.is_object()) {
            set(source, "defaultMode", json!(420));
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|path| path.is_object()) {
        set(path, "type", json!(""));
    }
    if let Some(sources) = volume.pointer_mut("/projected/sources") {
        each(sources, |source| {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                set(token, "expirationSeconds", json!(3600));
            }
        });
    }
    let sources = volume.as_object().map_or(0, serde_json::Map::len);
    if sources <= 1 {
        set(volume, "emptyDir", json!({}));
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container
        .pointer("/resources/limits")
        .and_then(Value::as_object)
    else {
        return;
    };
    let limits = limits.clone();
    let requests = section(&mut container["resources"], "requests");
    for (resource, quantity) in limits {
        set(requests, &resource, quantity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_moving_tags_are_always_pulled() {
        for (image, latest) in [
            ("img", true),
            ("img:latest", true),
            ("img:1", false),
            ("host:5000/img", true),
            ("host:5000/img:2", false),
            ("img@sha256:abc", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
