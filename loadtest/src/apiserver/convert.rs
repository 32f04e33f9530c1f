//! Between the stored form of an object and the version it is served in.
//!
//! Objects are stored in one version per resource: events as core/v1, HorizontalPodAutoscalers as
//! autoscaling/v2, custom resources as they were written. Owns the renaming of fields that this
//! needs. Refuses conversion webhooks. Invariant: an object already in the wanted version is
//! returned untouched.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::resources::Resource;

/// Fields of an event: name in core/v1, name in events.k8s.io/v1.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// A stored object as the resource serves it.
pub fn to_served<'a>(resource: &Resource, stored: &'a Value) -> Cow<'a, Value> {
    let wanted = resource.api_version();
    let current = stored["apiVersion"].as_str().unwrap_or("");
    if current == wanted || current.is_empty() {
        return Cow::Borrowed(stored);
    }
    let mut value = match (resource.storage.as_str(), wanted.as_str()) {
        ("events", "events.k8s.io/v1") => renamed(stored, |name| {
            EVENT_FIELDS
                .iter()
                .find(|(core, _)| *core == name)
                .map(|(_, new)| *new)
        }),
        ("horizontalpodautoscalers.autoscaling", "autoscaling/v1") => autoscaler_v1(stored),
        _ => stored.clone(),
    };
    value["apiVersion"] = json!(wanted);
    Cow::Owned(value)
}

/// An object written through the resource as it is stored.
pub fn to_stored(resource: &Resource, served: Value) -> Value {
    match (
        resource.storage.as_str(),
        resource.group.as_str(),
        resource.version.as_str(),
    ) {
        ("events", "events.k8s.io", _) => {
            let mut value = renamed(&served, |name| {
                EVENT_FIELDS
                    .iter()
                    .find(|(_, new)| *new == name)
                    .map(|(core, _)| *core)
            });
            value["apiVersion"] = json!("v1");
            value
        }
        ("horizontalpodautoscalers.autoscaling", _, "v1") => autoscaler_v2(served),
        _ => served,
    }
}

fn renamed<'n>(value: &Value, rename: impl Fn(&str) -> Option<&'n str>) -> Value {
    let Some(members) = value.as_object() else {
        return value.clone();
    };
    let members = members
        .iter()
        .map(|(name, member)| (rename(name).unwrap_or(name).to_owned(), member.clone()));
    Value::Object(members.collect::<Map<_, _>>())
}

fn autoscaler_v1(stored: &Value) -> Value {
    let mut value = stored.clone();
    let is_cpu = |metric: &&Value| {
        metric.pointer("/resource/name") == Some(&json!("cpu"))
            && metric
                .pointer("/resource/target/averageUtilization")
                .is_some()
    };
    if let Some(spec) = value["spec"].as_object_mut() {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(cpu) = metrics.iter().find(is_cpu) {
            let target = cpu["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
        }
        spec.remove("behavior");
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
    }
    value
}

fn autoscaler_v2(served: Value) -> Value {
    let mut value = served;
    value["apiVersion"] = json!("autoscaling/v2");
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(target) = spec.remove("targetCPUUtilizationPercentage")
    {
        let metric = json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": target}}}]);
        spec.insert("metrics".to_owned(), metric);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resources::Registry;

    #[test]
    fn an_event_survives_the_way_through_both_groups() {
        let registry = Registry::builtin();
        let resource = registry.find("events.k8s.io", "v1", "events").unwrap();
        let served = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "hello",
            "regarding": {"name": "p"}, "reportingController": "c"});
        let stored = to_stored(&resource, served.clone());
        assert_eq!(stored["message"], "hello");
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(to_served(&resource, &stored).into_owned(), served);
    }
}
