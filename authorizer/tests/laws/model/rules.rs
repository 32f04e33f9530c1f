//! What nodes may, as a table: resource, verbs, condition.

#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Always,
    Related,
    RelatedInNamespace,
    OwnName,
    OwnLease,
    LeaseNamespace,
    Selected,
    SelectedOrRelated,
    ServiceAccount,
    Bundles,
    CertificateRequests(Certificates),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Certificates {
    Create,
    Get,
    Select,
}

use Condition::{
    Always, Bundles, CertificateRequests, LeaseNamespace, OwnLease, OwnName, Related,
    RelatedInNamespace, Selected, SelectedOrRelated, ServiceAccount,
};

/// `RESOURCE[/SUBRESOURCE]@GROUP`, verbs, condition.
pub(super) const RULES: &[(&str, &str, Condition)] = &[
    ("secrets@", "get list watch", RelatedInNamespace),
    ("configmaps@", "get list watch", RelatedInNamespace),
    ("persistentvolumeclaims@", "get", Related),
    ("persistentvolumeclaims/status@", "update patch", Related),
    ("persistentvolumes@", "get", Related),
    ("resourceclaims@resource.k8s.io", "get", Related),
    ("volumeattachments@storage.k8s.io", "get", Related),
    ("serviceaccounts@", "get", ServiceAccount),
    ("serviceaccounts/token@", "create", Related),
    (
        "leases@coordination.k8s.io",
        "get update patch delete",
        OwnLease,
    ),
    (
        "leases/*@coordination.k8s.io",
        "get update patch delete",
        OwnLease,
    ),
    ("leases@coordination.k8s.io", "create", LeaseNamespace),
    ("leases/*@coordination.k8s.io", "create", LeaseNamespace),
    (
        "csinodes@storage.k8s.io",
        "get update patch delete",
        OwnName,
    ),
    ("csinodes@storage.k8s.io", "create", Always),
    ("resourceslices@resource.k8s.io", "create", Always),
    (
        "resourceslices@resource.k8s.io",
        "get update patch delete",
        Related,
    ),
    (
        "resourceslices@resource.k8s.io",
        "list watch deletecollection",
        Selected,
    ),
    ("nodes@", "create update patch", Always),
    ("nodes@", "get list watch", OwnName),
    ("nodes/status@", "update patch", Always),
    ("pods@", "get", Related),
    ("pods@", "list watch", SelectedOrRelated),
    ("pods@", "create delete", Always),
    ("pods/status@", "update patch", Always),
    ("pods/eviction@", "create", Always),
    (
        "podcertificaterequests@certificates.k8s.io",
        "create",
        CertificateRequests(Certificates::Create),
    ),
    (
        "podcertificaterequests@certificates.k8s.io",
        "get",
        CertificateRequests(Certificates::Get),
    ),
    (
        "podcertificaterequests@certificates.k8s.io",
        "list watch",
        CertificateRequests(Certificates::Select),
    ),
    ("services@", "get list watch", Always),
    ("endpoints@", "get", Always),
    ("csidrivers@storage.k8s.io", "get list watch", Always),
    ("runtimeclasses@node.k8s.io", "get list watch", Always),
    (
        "certificatesigningrequests@certificates.k8s.io",
        "create get list watch",
        Always,
    ),
    (
        "clustertrustbundles@certificates.k8s.io",
        "get list watch",
        Bundles,
    ),
    ("events@", "create update patch", Always),
    ("events@events.k8s.io", "create update patch", Always),
    ("tokenreviews@authentication.k8s.io", "create", Always),
    (
        "subjectaccessreviews@authorization.k8s.io",
        "create",
        Always,
    ),
    (
        "localsubjectaccessreviews@authorization.k8s.io",
        "create",
        Always,
    ),
];
