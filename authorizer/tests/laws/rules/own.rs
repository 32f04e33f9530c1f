//! What is a node's own by its name or by a selector: lease, nodes, pods, slices.

use watershed_authorizer::Features;

use super::{N1, NO_NAME, check};

const LEASE_VERB: &str = "no: can only get, create, update, patch, or delete a node lease";
const LEASE_NAME: &str = "no: can only access node lease with the same name as the requesting node";
const LEASE_NAMESPACE: &str =
    r#"no: can only access leases in the "kube-node-lease" system namespace"#;
const CSI_VERB: &str = "no: can only get, create, update, patch, or delete a CSINode";
const CSI_NAME: &str = "no: can only access CSINode with the same name as the requesting node";
const SLICES: &str =
    "no: can only list/watch/deletecollection resourceslices with nodeName field selector";
const SLICE_VERB: &str = "no: only the following verbs are allowed for a ResourceSlice: get, watch, \
     list, create, update, patch, delete, deletecollection";
const PODS: &str = "no: can only list/watch pods with spec.nodeName field selector";
const ALL_NODES: &str = "no: node 'n1' cannot read all nodes, only its own Node object";
const OTHER_NODE: &str = "no: node 'n1' cannot read 'n2', only its own Node object";

#[test]
fn own_lease_and_csi_node_only() {
    let table = [
        ("get leases@coordination.k8s.io kube-node-lease/n1", "rule"),
        (
            "update leases@coordination.k8s.io kube-node-lease/n1",
            "rule",
        ),
        (
            "patch leases@coordination.k8s.io kube-node-lease/n1",
            "rule",
        ),
        (
            "delete leases@coordination.k8s.io kube-node-lease/n1",
            "rule",
        ),
        ("create leases@coordination.k8s.io kube-node-lease/", "rule"),
        (
            "get leases@coordination.k8s.io kube-node-lease/n2",
            LEASE_NAME,
        ),
        (
            "get leases@coordination.k8s.io kube-system/n1",
            LEASE_NAMESPACE,
        ),
        (
            "create leases@coordination.k8s.io kube-system/",
            LEASE_NAMESPACE,
        ),
        (
            "list leases@coordination.k8s.io kube-node-lease/n1",
            LEASE_VERB,
        ),
        (
            "watch leases@coordination.k8s.io kube-node-lease/n1",
            LEASE_VERB,
        ),
        (
            "deletecollection leases@coordination.k8s.io kube-node-lease/",
            LEASE_VERB,
        ),
        ("get csinodes@storage.k8s.io n1", "rule"),
        ("update csinodes@storage.k8s.io n1", "rule"),
        ("patch csinodes@storage.k8s.io n1", "rule"),
        ("delete csinodes@storage.k8s.io n1", "rule"),
        ("create csinodes@storage.k8s.io", "rule"),
        ("get csinodes@storage.k8s.io n2", CSI_NAME),
        (
            "get csinodes/status@storage.k8s.io n1",
            "no: cannot authorize CSINode subresources",
        ),
        ("watch csinodes@storage.k8s.io n1", CSI_VERB),
    ];
    check(Features::default(), "n1", &table);
}

#[test]
fn own_node_only_is_read_and_any_is_written() {
    let table = [
        ("get nodes n1", "rule"),
        ("list nodes n1 ?metadata.name=n1", "rule"),
        ("watch nodes n1 ?metadata.name=n1", "rule"),
        ("get nodes n2", OTHER_NODE),
        ("watch nodes n2", OTHER_NODE),
        ("watch nodes", ALL_NODES),
        ("list nodes ?metadata.labels=n1", ALL_NODES),
        ("create nodes", "rule"),
        ("update nodes n2", "rule"),
        ("patch nodes n2", "rule"),
        ("delete nodes n1", "no: "),
        ("update nodes/status n2", "rule"),
        ("patch nodes/status n2", "rule"),
        ("get nodes/status n1", "no: "),
        ("get nodes/proxy n1", "no: "),
    ];
    check(Features::default(), "n1", &table);
    check(
        Features::default(),
        "n.with.dots",
        &[("get nodes n.with.dots", "rule")],
    );
}

#[test]
fn pods_are_read_by_selector_or_one_by_one() {
    let table = [
        ("list pods ?spec.nodeName=n1", "rule"),
        ("watch pods ?spec.nodeName==n1", "rule"),
        ("watch pods ns/ ?spec.nodeName=n1", "rule"),
        ("watch pods ?spec.nodeName=n1,status.phase=Running", "rule"),
        ("watch pods ?spec.nodeName=n1,spec.nodeName=n2", "rule"),
        ("list pods ?spec.nodeName!=n2", PODS),
        ("list pods ?spec.nodeName!=n1", PODS),
        ("list pods ?spec.nodeName=n2", PODS),
        ("list pods ?spec.host=n1", PODS),
        ("list pods", PODS),
        ("get pods ns/pod", "graph"),
        ("list pods ns/pod", "graph"),
        ("watch pods ns/pod", "graph"),
        ("get pods ns/other", N1),
        ("watch pods ns/other", N1),
        ("get pods ns/ ?spec.nodeName=n1", NO_NAME),
        ("create pods ns/", "rule"),
        ("delete pods ns/other", "rule"),
        ("deletecollection pods ns/ ?spec.nodeName=n1", "no: "),
        ("update pods ns/pod", "no: "),
        ("update pods/status ns/other", "rule"),
        ("patch pods/status ns/other", "rule"),
        ("get pods/status ns/pod", "no: "),
        ("create pods/eviction ns/other", "rule"),
        ("get pods/log ns/pod", "no: "),
        ("create pods/exec ns/pod", "no: "),
    ];
    check(Features::default(), "n1", &table);
}

#[test]
fn resource_slices_are_read_by_selector_or_one_by_one() {
    let table = [
        ("create resourceslices@resource.k8s.io", "rule"),
        ("get resourceslices@resource.k8s.io slice", "graph"),
        ("update resourceslices@resource.k8s.io slice", "graph"),
        ("patch resourceslices@resource.k8s.io slice", "graph"),
        ("delete resourceslices@resource.k8s.io slice", "graph"),
        ("get resourceslices@resource.k8s.io other", N1),
        (
            "list resourceslices@resource.k8s.io ?spec.nodeName=n1",
            "rule",
        ),
        (
            "watch resourceslices@resource.k8s.io ?spec.nodeName=n1",
            "rule",
        ),
        (
            "deletecollection resourceslices@resource.k8s.io ?spec.nodeName=n1",
            "rule",
        ),
        (
            "watch resourceslices@resource.k8s.io ?spec.nodeName=n2",
            SLICES,
        ),
        ("watch resourceslices@resource.k8s.io ?nodeName=n1", SLICES),
        ("list resourceslices@resource.k8s.io slice", SLICES),
        (
            "get resourceslices/status@resource.k8s.io slice",
            "no: cannot authorize ResourceSlice subresources",
        ),
        ("proxy resourceslices@resource.k8s.io slice", SLICE_VERB),
    ];
    check(Features::default(), "n1", &table);
}
