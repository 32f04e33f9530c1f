//! The columns of pods.
//!
//! The status of a pod is the reason of the container that explains it best, as
//! `printers.go` `printPod` of 1.36 picks it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::builtin::{AGE_COLUMN, column, list, none_if_empty, text_at, wide};
use super::{Column, age_of};

pub(super) const COLUMNS: &[Column] = &[
    column(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
        ready,
    ),
    column(
        "Status",
        "The aggregate status of the containers in this pod.",
        status,
    ),
    column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last \
            container in this pod has restarted.",
        restarts,
    ),
    AGE_COLUMN,
    wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not \
            yet allocated.",
        |pod, _| none_if_empty(text_at(pod, "/status/podIP")),
    ),
    wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a \
            candidate for scheduling by the scheduler defined in schedulerName. Once this field \
            is set, the kubelet for this node becomes responsible for the lifecycle of this pod. \
            This field should not be used to express a desire for the pod to be scheduled on a \
            specific node. \
            https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        |pod, _| none_if_empty(text_at(pod, "/spec/nodeName")),
    ),
    wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it \
            cannot be scheduled right away as preemption victims receive their graceful \
            termination periods. This field does not guarantee that the pod will be scheduled on \
            this node. Scheduler may decide to place the pod elsewhere if other nodes become \
            available sooner. Scheduler may also decide to give the resources on this node to a \
            higher priority pod that is created after preemption. As a result, this field may be \
            different than PodSpec.nodeName when the pod is scheduled.",
        |pod, _| none_if_empty(text_at(pod, "/status/nominatedNodeName")),
    ),
    wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready \
            when all its containers are ready AND all conditions specified in the readiness \
            gates have status equal to \"True\" More info: \
            https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        gates,
    ),
];

fn ready(pod: &Value, _: Timestamp) -> Value {
    let total = list(&pod["spec"]["containers"]).count();
    let statuses = list(&pod["status"]["containerStatuses"]);
    let ready = statuses.filter(|status| status["ready"] == true).count();
    json!(format!("{ready}/{total}"))
}

fn status(pod: &Value, _: Timestamp) -> Value {
    let text = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let mut reason = text("/status/reason");
    if reason.is_empty() {
        reason = text("/status/phase");
    }
    for container in list(&pod["status"]["containerStatuses"]) {
        let state = &container["state"];
        let why = |kind: &str| {
            state[kind]["reason"]
                .as_str()
                .filter(|reason| !reason.is_empty())
        };
        if let Some(why) = why("waiting").or_else(|| why("terminated")) {
            reason = why;
        }
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        reason = "Terminating";
    }
    json!(reason)
}

fn restarts(pod: &Value, now: Timestamp) -> Value {
    let statuses = || list(&pod["status"]["containerStatuses"]);
    let count: i64 = statuses()
        .filter_map(|status| status["restartCount"].as_i64())
        .sum();
    let finished = |status: &Value| {
        status
            .pointer("/lastState/terminated/finishedAt")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    match statuses().filter_map(finished).max() {
        Some(last) if count > 0 => json!(format!("{count} ({} ago)", age_of(&json!(last), now))),
        _ => json!(count.to_string()),
    }
}

fn gates(pod: &Value, _: Timestamp) -> Value {
    let gates: Vec<&Value> = list(&pod["spec"]["readinessGates"]).collect();
    if gates.is_empty() {
        return json!("<none>");
    }
    let passed = gates.iter().filter(|gate| {
        let mut conditions = list(&pod["status"]["conditions"]);
        conditions.any(|condition| {
            condition["type"] == gate["conditionType"] && condition["status"] == "True"
        })
    });
    json!(format!("{}/{}", passed.count(), gates.len()))
}
