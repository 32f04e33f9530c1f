//! The selectable fields of the resources that ship with Kubernetes, as facts in tables.
//!
//! Owns which labels each resource accepts (as kube-apiserver 1.36), where their values stand in
//! JSON and in protobuf, and the wording of its refusal. A resource that is missing here is not an
//! error: the caller forwards what it cannot judge. `metadata.name` is accepted everywhere and
//! therefore not in the tables.

/// Where the value of a label stands, and how it is turned into text.
#[derive(Debug)]
pub(super) struct Selectable {
    pub(super) label: &'static str,
    /// The first of these that is not empty; none for a label that is accepted but never filled.
    pub(super) paths: &'static [Path],
    pub(super) format: Format,
}

/// One place in both encodings.
#[derive(Debug)]
pub(super) struct Path {
    /// Members joined by dots; `[0]` after a member takes the first element.
    pub(super) json: &'static str,
    /// Field numbers from the object; a negative one takes the first of a repeated field.
    pub(super) wire: &'static [i32],
}

/// How a value becomes the text a selector is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A string; empty when unset.
    Text,
    /// `true` or `false`; `false` when unset.
    Bool,
    /// A decimal integer; `0` when unset.
    Decimal,
    /// Whatever a custom resource holds there, as Go prints it; empty when unset.
    Any,
}

/// How the apiserver words its refusal of any other label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `field label not supported: L`
    NotSupported,
    /// `field label "L" not supported for KIND`
    NotSupportedFor(&'static str),
    /// `field label not supported for GROUP/VERSION, Kind=KIND: L`
    NotSupportedForKind(&'static str),
    /// `"L" is not a known field selector: only "metadata.name", "metadata.namespace"`
    NotKnown,
    /// The set may be incomplete: forward.
    Unsure,
}

/// One resource with labels of its own.
#[derive(Debug)]
pub(super) struct Builtin {
    pub(super) group: &'static str,
    pub(super) versions: &'static [&'static str],
    pub(super) resource: &'static str,
    /// Whether `metadata.namespace` is accepted.
    pub(super) namespace: bool,
    pub(super) fields: &'static [Selectable],
    /// The label events are indexed by.
    pub(super) trigger: Option<&'static str>,
    pub(super) refusal: Refusal,
}

/// The resource's row, unless it has no labels of its own.
pub(super) fn special(group: &str, version: &str, resource: &str) -> Option<&'static Builtin> {
    SPECIAL.iter().find(|row| {
        row.group == group && row.resource == resource && row.versions.contains(&version)
    })
}

const fn text(label: &'static str, paths: &'static [Path]) -> Selectable {
    Selectable {
        label,
        paths,
        format: Format::Text,
    }
}

const fn at(json: &'static str, wire: &'static [i32]) -> Path {
    Path { json, wire }
}

const SPECIAL: &[Builtin] = &[
    Builtin {
        group: "",
        versions: &["v1"],
        resource: "pods",
        namespace: true,
        fields: PODS,
        trigger: Some("spec.nodeName"),
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "",
        versions: &["v1"],
        resource: "nodes",
        namespace: false,
        fields: &[Selectable {
            label: "spec.unschedulable",
            paths: &[at("spec.unschedulable", &[2, 4])],
            format: Format::Bool,
        }],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "",
        versions: &["v1"],
        resource: "services",
        namespace: true,
        fields: &[
            text("spec.clusterIP", &[at("spec.clusterIP", &[2, 3])]),
            text("spec.type", &[at("spec.type", &[2, 4])]),
        ],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "",
        versions: &["v1"],
        resource: "secrets",
        namespace: true,
        fields: &[text("type", &[at("type", &[3])])],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "",
        versions: &["v1"],
        resource: "namespaces",
        namespace: false,
        fields: &[text("status.phase", &[at("status.phase", &[3, 1])])],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "",
        versions: &["v1"],
        resource: "replicationcontrollers",
        namespace: true,
        fields: &[Selectable {
            label: "status.replicas",
            paths: &[at("status.replicas", &[3, 1])],
            format: Format::Decimal,
        }],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "",
        versions: &["v1"],
        resource: "events",
        namespace: true,
        fields: CORE_EVENTS,
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "events.k8s.io",
        versions: &["v1"],
        resource: "events",
        namespace: true,
        fields: EVENTS,
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "batch",
        versions: &["v1"],
        resource: "jobs",
        namespace: true,
        fields: &[Selectable {
            label: "status.successful",
            paths: &[at("status.succeeded", &[3, 5])],
            format: Format::Decimal,
        }],
        trigger: None,
        refusal: Refusal::NotSupportedFor("Job"),
    },
    Builtin {
        group: "certificates.k8s.io",
        versions: &["v1"],
        resource: "certificatesigningrequests",
        namespace: false,
        fields: &[text("spec.signerName", &[at("spec.signerName", &[2, 7])])],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "certificates.k8s.io",
        versions: &["v1beta1", "v1alpha1"],
        resource: "clustertrustbundles",
        namespace: false,
        fields: &[text("spec.signerName", &[at("spec.signerName", &[2, 1])])],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "certificates.k8s.io",
        versions: &["v1beta1"],
        resource: "podcertificaterequests",
        namespace: false,
        fields: &[
            text("spec.signerName", &[at("spec.signerName", &[2, 1])]),
            text("spec.podName", &[at("spec.podName", &[2, 2])]),
            text("spec.nodeName", &[at("spec.nodeName", &[2, 6])]),
        ],
        trigger: None,
        refusal: Refusal::NotSupported,
    },
    Builtin {
        group: "resource.k8s.io",
        versions: &["v1", "v1beta1", "v1beta2"],
        resource: "resourceslices",
        namespace: false,
        fields: &[
            text("spec.nodeName", &[at("spec.nodeName", &[2, 3])]),
            text("spec.driver", &[at("spec.driver", &[2, 1])]),
        ],
        trigger: Some("spec.nodeName"),
        refusal: Refusal::NotSupportedForKind("ResourceSlice"),
    },
];

const PODS: &[Selectable] = &[
    text("spec.nodeName", &[at("spec.nodeName", &[2, 10])]),
    text("spec.restartPolicy", &[at("spec.restartPolicy", &[2, 3])]),
    text("spec.schedulerName", &[at("spec.schedulerName", &[2, 19])]),
    text(
        "spec.serviceAccountName",
        &[at("spec.serviceAccountName", &[2, 8])],
    ),
    Selectable {
        label: "spec.hostNetwork",
        paths: &[at("spec.hostNetwork", &[2, 11])],
        format: Format::Bool,
    },
    text("status.phase", &[at("status.phase", &[3, 1])]),
    text(
        "status.podIP",
        &[
            at("status.podIPs[0].ip", &[3, -12, 1]),
            at("status.podIP", &[3, 6]),
        ],
    ),
    text("status.podIPs", &[]),
    text(
        "status.nominatedNodeName",
        &[at("status.nominatedNodeName", &[3, 11])],
    ),
];

const CORE_EVENTS: &[Selectable] = &[
    text("involvedObject.kind", &[at("involvedObject.kind", &[2, 1])]),
    text(
        "involvedObject.namespace",
        &[at("involvedObject.namespace", &[2, 2])],
    ),
    text("involvedObject.name", &[at("involvedObject.name", &[2, 3])]),
    text("involvedObject.uid", &[at("involvedObject.uid", &[2, 4])]),
    text(
        "involvedObject.apiVersion",
        &[at("involvedObject.apiVersion", &[2, 5])],
    ),
    text(
        "involvedObject.resourceVersion",
        &[at("involvedObject.resourceVersion", &[2, 6])],
    ),
    text(
        "involvedObject.fieldPath",
        &[at("involvedObject.fieldPath", &[2, 7])],
    ),
    text("reason", &[at("reason", &[3])]),
    text("reportingComponent", &[at("reportingComponent", &[14])]),
    text(
        "source",
        &[
            at("source.component", &[5, 1]),
            at("reportingComponent", &[14]),
        ],
    ),
    text("type", &[at("type", &[9])]),
];

const EVENTS: &[Selectable] = &[
    text("regarding.kind", &[at("regarding.kind", &[8, 1])]),
    text("regarding.namespace", &[at("regarding.namespace", &[8, 2])]),
    text("regarding.name", &[at("regarding.name", &[8, 3])]),
    text("regarding.uid", &[at("regarding.uid", &[8, 4])]),
    text(
        "regarding.apiVersion",
        &[at("regarding.apiVersion", &[8, 5])],
    ),
    text(
        "regarding.resourceVersion",
        &[at("regarding.resourceVersion", &[8, 6])],
    ),
    text("regarding.fieldPath", &[at("regarding.fieldPath", &[8, 7])]),
    text("reason", &[at("reason", &[7])]),
    text("reportingController", &[at("reportingController", &[4])]),
    text("type", &[at("type", &[11])]),
];
