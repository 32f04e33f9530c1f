//! The rule table, row by row: who is a node, what every node may, what is a node's own.

mod own;

use watershed_authorizer::{Authorizer, Decision, Features, Source};

use crate::ask::{Ask, shown};
use crate::model::Object;
use crate::objects::{Bound, Place, Pod, Target, Volume};
use crate::parity::feed;

/// What the table's requests are about. Everything has to do with node `n1`, and nothing with `n2`.
fn world(features: Features) -> Authorizer {
    let authorizer = Authorizer::new(features);
    let pod = Pod {
        namespace: "ns".to_owned(),
        name: "pod".to_owned(),
        node: "n1".to_owned(),
        mirror: false,
        mentions: [
            (Place::Volume(Target::Secret), "secret"),
            (Place::Volume(Target::ConfigMap), "config"),
            (Place::PersistentVolumeClaim, "claim"),
            (Place::ServiceAccount, "account"),
            (Place::ResourceClaim, "device"),
        ]
        .map(|(place, name)| (place, name.to_owned()))
        .to_vec(),
    };
    let volume = Volume {
        name: "volume".to_owned(),
        claim: Some(("ns".to_owned(), "claim".to_owned())),
        secrets: Vec::new(),
    };
    let bound = |namespace: &str, name: &str| Bound {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        node: "n1".to_owned(),
    };
    feed(&authorizer, &Object::Pod(pod));
    feed(&authorizer, &Object::Volume(volume));
    feed(&authorizer, &Object::Attachment(bound("", "attachment")));
    feed(&authorizer, &Object::Slice(bound("", "slice")));
    feed(
        &authorizer,
        &Object::CertificateRequest(bound("ns", "request")),
    );
    authorizer
}

const N1: &str = "no: no relationship found between node 'n1' and this object";
const N2: &str = "no: no relationship found between node 'n2' and this object";
const GET_ONLY: &str = "no: can only get individual resources of this type";
const READ_ONLY: &str = "no: can only read resources of this type";
const NO_NAME: &str = "no: No Object name found";
const TOKENS: &str = "no: can only create tokens for individual service accounts";

#[track_caller]
fn check(features: Features, node: &str, table: &[(&str, &str)]) {
    let authorizer = world(features);
    for (request, expected) in table {
        let decision = Ask::new(request).by_node(node).decide(&authorizer);
        assert_eq!(shown(&decision), *expected, "{request} by {node}");
    }
}

#[test]
fn objects_of_pods_are_read_by_the_pods_node() {
    let table = [
        ("get secrets ns/secret", "graph"),
        ("list secrets ns/secret", "graph"),
        ("watch secrets ns/secret ?metadata.name=secret", "graph"),
        ("get secrets ns/other", N1),
        ("get secrets other/secret", N1),
        ("list secrets ns/", NO_NAME),
        (
            "watch secrets",
            "no: can only read namespaced object of this type",
        ),
        (
            "get secrets/status ns/secret",
            "no: cannot read subresource",
        ),
        ("update secrets ns/secret", READ_ONLY),
        ("delete secrets ns/secret", READ_ONLY),
        ("get configmaps ns/config", "graph"),
        ("list configmaps ns/config", "graph"),
        ("watch configmaps ns/config", "graph"),
        ("watch configmaps ns/secret", N1),
        ("create configmaps ns/", READ_ONLY),
        ("get persistentvolumeclaims ns/claim", "graph"),
        ("list persistentvolumeclaims ns/claim", GET_ONLY),
        ("get persistentvolumeclaims ns/other", N1),
        (
            "get persistentvolumeclaims/log ns/claim",
            "no: cannot get subresource",
        ),
        ("update persistentvolumeclaims/status ns/claim", "graph"),
        ("patch persistentvolumeclaims/status ns/claim", "graph"),
        ("patch persistentvolumeclaims/status ns/other", N1),
        (
            "get persistentvolumeclaims/status ns/claim",
            "no: can only get/update/patch this type",
        ),
        ("get persistentvolumes volume", "graph"),
        ("get persistentvolumes ns/volume", N1),
        ("watch persistentvolumes volume", GET_ONLY),
        ("get resourceclaims@resource.k8s.io ns/device", "graph"),
        ("get resourceclaims@resource.k8s.io ns/other", N1),
        ("watch resourceclaims@resource.k8s.io ns/device", GET_ONLY),
        ("get volumeattachments@storage.k8s.io attachment", "graph"),
        ("get volumeattachments@storage.k8s.io other", N1),
        ("list volumeattachments@storage.k8s.io", GET_ONLY),
    ];
    check(Features::default(), "n1", &table);
}

#[test]
fn objects_of_pods_are_not_read_by_other_nodes() {
    let table = [
        ("get secrets ns/secret", N2),
        ("watch configmaps ns/config", N2),
        ("get persistentvolumeclaims ns/claim", N2),
        ("update persistentvolumeclaims/status ns/claim", N2),
        ("get persistentvolumes volume", N2),
        ("get resourceclaims@resource.k8s.io ns/device", N2),
        ("get volumeattachments@storage.k8s.io attachment", N2),
        ("get resourceslices@resource.k8s.io slice", N2),
        ("delete resourceslices@resource.k8s.io slice", N2),
        ("get serviceaccounts ns/account", N2),
        ("create serviceaccounts/token ns/account", N2),
        ("get pods ns/pod", N2),
        ("watch pods ns/pod", N2),
    ];
    check(Features::default(), "n2", &table);
}

#[test]
fn service_accounts_are_read_and_get_tokens_one_by_one() {
    let table = [
        ("get serviceaccounts ns/account", "graph"),
        ("get serviceaccounts ns/other", N1),
        (
            "get serviceaccounts account",
            "no: can only read namespaced object of this type",
        ),
        ("list serviceaccounts ns/account", TOKENS),
        ("create serviceaccounts ns/", TOKENS),
        (
            "create serviceaccounts ns/account",
            "no: can only create token subresource of serviceaccount",
        ),
        ("get serviceaccounts/token ns/account", TOKENS),
        ("create serviceaccounts/token ns/account", "graph"),
        ("create serviceaccounts/token ns/other", N1),
        ("create serviceaccounts/token ns/", TOKENS),
    ];
    check(Features::default(), "n1", &table);
    let off = Features {
        credential_provider_tokens: false,
        ..Features::default()
    };
    let table = [
        (
            "get serviceaccounts ns/account",
            "no: not allowed to get service accounts",
        ),
        ("create serviceaccounts/token ns/account", "graph"),
    ];
    check(off, "n1", &table);
}

#[test]
fn pod_certificate_requests_need_their_gate() {
    let on = Features {
        pod_certificate_requests: true,
        ..Features::default()
    };
    let status = "no: nodes may not access the status subresource of PodCertificateRequests";
    let selector = "no: can only list/watch podcertificaterequests with nodeName field selector";
    let table = [
        (
            "create podcertificaterequests@certificates.k8s.io ns/",
            "rule",
        ),
        (
            "get podcertificaterequests@certificates.k8s.io ns/request",
            "graph",
        ),
        (
            "get podcertificaterequests@certificates.k8s.io ns/other",
            N1,
        ),
        (
            "watch podcertificaterequests@certificates.k8s.io ?spec.nodeName=n1",
            "rule",
        ),
        (
            "list podcertificaterequests@certificates.k8s.io ?spec.nodeName=n2",
            selector,
        ),
        (
            "update podcertificaterequests@certificates.k8s.io ns/request",
            "no: nodes may not update podcertificaterequests",
        ),
        (
            "update podcertificaterequests/status@certificates.k8s.io ns/request",
            status,
        ),
    ];
    check(on, "n1", &table);
    let refused = table.map(|(request, _)| (request, "no: "));
    check(Features::default(), "n1", &refused);
}

#[test]
fn what_is_not_divided_among_nodes_is_every_nodes() {
    let table = [
        ("get services ns/any", "rule"),
        ("list services", "rule"),
        ("watch services ?spec.clusterIP!=None", "rule"),
        ("create services ns/", "no: "),
        ("get services/status ns/any", "no: "),
        ("get endpoints ns/any", "rule"),
        ("list endpoints", "no: "),
        ("watch endpointslices@discovery.k8s.io", "no: "),
        ("watch csidrivers@storage.k8s.io", "rule"),
        ("list runtimeclasses@node.k8s.io", "rule"),
        (
            "create certificatesigningrequests@certificates.k8s.io",
            "rule",
        ),
        (
            "get certificatesigningrequests@certificates.k8s.io any",
            "rule",
        ),
        (
            "watch certificatesigningrequests@certificates.k8s.io",
            "rule",
        ),
        (
            "delete certificatesigningrequests@certificates.k8s.io any",
            "no: ",
        ),
        ("create events ns/", "rule"),
        ("patch events@events.k8s.io ns/any", "rule"),
        ("update events ns/any", "rule"),
        ("get events ns/any", "no: "),
        ("create tokenreviews@authentication.k8s.io", "rule"),
        ("create subjectaccessreviews@authorization.k8s.io", "rule"),
        (
            "create localsubjectaccessreviews@authorization.k8s.io ns/",
            "rule",
        ),
        (
            "create selfsubjectaccessreviews@authorization.k8s.io",
            "no: ",
        ),
        ("list clustertrustbundles@certificates.k8s.io", "no: "),
        ("get namespaces ns/ns", "no: "),
        ("get secrets@example.com ns/secret", "no: "),
        ("get /healthz", "no: "),
    ];
    check(Features::default(), "nobody-knows", &table);
    let on = Features {
        cluster_trust_bundles: true,
        ..Features::default()
    };
    check(
        on,
        "n1",
        &[("list clustertrustbundles@certificates.k8s.io", "rule")],
    );
}

#[test]
fn a_node_is_its_prefix_and_its_group() {
    let authorizer = world(Features::default());
    let ask = Ask::new("get nodes n1");
    let table = [
        ("system:node:n1", &["system:nodes"][..], "rule"),
        ("system:node:n1", &["a", "system:nodes", "b"], "rule"),
        ("system:node:n1", &[], "no: "),
        (
            "system:node:n1",
            &["system:authenticated", "system:node"],
            "no: ",
        ),
        ("n1", &["system:nodes"], "no: "),
        ("system:nodes:n1", &["system:nodes"], "no: "),
        (
            "system:node:",
            &["system:nodes"],
            r#"no: unknown node for user "system:node:""#,
        ),
        ("system:node:n1", &["system:masters"], "masters"),
    ];
    for (user, groups, expected) in table {
        let decision = ask.clone().by(user, groups).decide(&authorizer);
        assert_eq!(shown(&decision), expected, "{user} in {groups:?}");
    }
}

#[test]
fn a_denial_depends_on_the_ways_there_could_be() {
    use Source::{PersistentVolumes, Pods, ResourceSlices, VolumeAttachments};
    let authorizer = world(Features::default());
    let table = [
        ("get secrets ns/other", &[Pods, PersistentVolumes][..], true),
        (
            "get persistentvolumes other",
            &[Pods, PersistentVolumes],
            false,
        ),
        ("get configmaps ns/other", &[Pods], true),
        ("get persistentvolumeclaims ns/other", &[Pods], true),
        ("get serviceaccounts ns/other", &[Pods], true),
        ("get pods ns/other", &[Pods], true),
        (
            "get volumeattachments@storage.k8s.io other",
            &[VolumeAttachments],
            false,
        ),
        (
            "get resourceslices@resource.k8s.io other",
            &[ResourceSlices],
            false,
        ),
        ("list secrets ns/", &[], true),
        ("list pods", &[], false),
        ("get nodes n2", &[], false),
        ("get /metrics", &[], false),
    ];
    for (request, graph, namespaced) in table {
        let decision = Ask::new(request).by_node("n1").decide(&authorizer);
        let Decision::NoOpinion(denial) = decision else {
            panic!("{request} is allowed");
        };
        let mut expected = graph.to_vec();
        expected.extend([Source::ClusterRoleBindings, Source::ClusterRoles]);
        if namespaced {
            expected.extend([Source::RoleBindings, Source::Roles]);
        }
        assert_eq!(denial.sources().collect::<Vec<_>>(), expected, "{request}");
    }
}
