//! The resources that ship with Kubernetes and have no selectable fields besides name and
//! namespace.
//!
//! Owns the list of them, as served by kube-apiserver 1.36. Being listed matters: of a resource
//! that is not, nobody knows which labels the apiserver accepts.

use super::builtin::Refusal;

/// How a resource that accepts only `metadata.name` and `metadata.namespace` refuses others; `None`
/// when it is not known.
pub(super) fn refusal(group: &str, version: &str, resource: &str) -> Option<Refusal> {
    if UNSURE.contains(&(group, version, resource)) {
        return Some(Refusal::Unsure);
    }
    PLAIN
        .iter()
        .any(|(known, versions, resources)| {
            *known == group && versions.contains(&version) && resources.contains(&resource)
        })
        .then_some(Refusal::NotKnown)
}

/// Served versions of these accepted more labels in the past, or were not checked against a server:
/// what they do not have is forwarded.
const UNSURE: &[(&str, &str, &str)] =
    &[("apps", "v1", "statefulsets"), ("batch", "v1", "cronjobs")];

type Plain = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const PLAIN: &[Plain] = &[
    (
        "",
        &["v1"],
        &[
            "configmaps",
            "endpoints",
            "limitranges",
            "persistentvolumeclaims",
            "persistentvolumes",
            "podtemplates",
            "resourcequotas",
            "serviceaccounts",
        ],
    ),
    (
        "admissionregistration.k8s.io",
        &["v1", "v1beta1"],
        &[
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ],
    ),
    (
        "apiextensions.k8s.io",
        &["v1"],
        &["customresourcedefinitions"],
    ),
    ("apiregistration.k8s.io", &["v1"], &["apiservices"]),
    (
        "apps",
        &["v1"],
        &[
            "controllerrevisions",
            "daemonsets",
            "deployments",
            "replicasets",
        ],
    ),
    ("autoscaling", &["v1", "v2"], &["horizontalpodautoscalers"]),
    (
        "coordination.k8s.io",
        &["v1", "v1beta1", "v1alpha2"],
        &["leases", "leasecandidates"],
    ),
    ("discovery.k8s.io", &["v1"], &["endpointslices"]),
    (
        "flowcontrol.apiserver.k8s.io",
        &["v1"],
        &["flowschemas", "prioritylevelconfigurations"],
    ),
    (
        "networking.k8s.io",
        &["v1", "v1beta1"],
        &[
            "ingressclasses",
            "ingresses",
            "ipaddresses",
            "networkpolicies",
            "servicecidrs",
        ],
    ),
    ("node.k8s.io", &["v1"], &["runtimeclasses"]),
    ("policy", &["v1"], &["poddisruptionbudgets"]),
    (
        "rbac.authorization.k8s.io",
        &["v1"],
        &[
            "clusterrolebindings",
            "clusterroles",
            "rolebindings",
            "roles",
        ],
    ),
    (
        "resource.k8s.io",
        &["v1", "v1beta1", "v1beta2"],
        &["deviceclasses", "resourceclaims", "resourceclaimtemplates"],
    ),
    ("scheduling.k8s.io", &["v1"], &["priorityclasses"]),
    (
        "storage.k8s.io",
        &["v1", "v1beta1"],
        &[
            "csidrivers",
            "csinodes",
            "csistoragecapacities",
            "storageclasses",
            "volumeattachments",
            "volumeattributesclasses",
        ],
    ),
];
