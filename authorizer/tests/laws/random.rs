//! Random objects, changes and requests, out of so few names that they meet.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner};

use crate::ask::Ask;
use crate::model::Object;
use crate::objects::{Binding, Bound, Place, Pod, Role, Rule, Volume, VolumePlace};

/// Names the seed to replay.
const SEED: &str = "WATERSHED_AUTHORIZER_SEED";

/// Runs a law over random cases. A failure prints the seed that replays it, and the smallest case.
pub(crate) fn check<S: Strategy>(
    cases: u32,
    strategy: S,
    law: impl Fn(S::Value) -> TestCaseResult,
) {
    let fresh = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let seed =
        std::env::var(SEED).map_or_else(|_unset| fresh(), |seed| seed.parse().expect("a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_time: 20_000, // milliseconds
        ..ProptestConfig::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, random);
    if let Err(failure) = runner.run(&strategy, law) {
        panic!("{SEED}={seed} replays this\n{failure}");
    }
}

pub(crate) const NODES: &[&str] = &["n1", "n2", "n.3"];
pub(crate) const NAMESPACES: &[&str] = &["a", "b"];
pub(crate) const NAMES: &[&str] = &["x", "y", "z", "x-y", "y-made"];

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(texts).prop_map(str::to_owned)
}

fn some_of(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let some = subsequence(texts, 0..=texts.len().min(3));
    some.prop_map(|texts| texts.into_iter().map(str::to_owned).collect())
}

pub(crate) fn pod() -> impl Strategy<Value = Pod> {
    let node = prop_oneof![1 => Just(String::new()), 6 => one_of(NODES)];
    let mentions = vec((select(Place::ALL), one_of(NAMES)), 0..8);
    let parts = (
        one_of(NAMESPACES),
        one_of(NAMES),
        node,
        prop::bool::weighted(0.1),
        mentions,
    );
    parts.prop_map(|(namespace, name, node, mirror, mentions)| Pod {
        namespace,
        name,
        node,
        mirror,
        mentions: possible(mentions),
    })
}

/// Leaves out what validation would refuse.
fn possible(mentions: Vec<(Place, String)>) -> Vec<(Place, String)> {
    let mut kept: Vec<(Place, String)> = Vec::new();
    for (place, name) in mentions {
        let clashes = kept.iter().any(|(other, other_name)| {
            let templates = matches!(
                (place, other),
                (Place::FromTemplate(_), Place::FromTemplate(_))
            );
            (place.is_single() && *other == place) || (templates && *other_name == name)
        });
        if !clashes {
            kept.push((place, name));
        }
    }
    kept
}

pub(crate) fn volume() -> impl Strategy<Value = Volume> {
    let secret = || {
        (
            option::of(prop_oneof![1 => Just(String::new()), 5 => one_of(NAMESPACES)]),
            one_of(NAMES),
        )
    };
    let alone = (select(VolumePlace::ALONE), secret())
        .prop_map(|(place, (namespace, name))| vec![(place, namespace, name)]);
    let csi = subsequence(VolumePlace::CSI, 0..=5).prop_flat_map(move |places| {
        let secrets = vec(secret(), places.len());
        secrets.prop_map(move |secrets| {
            let all = places.iter().zip(secrets);
            all.map(|(&place, (namespace, name))| (place, namespace, name))
                .collect()
        })
    });
    let claim = option::weighted(0.9, (one_of(NAMESPACES), one_of(NAMES)));
    let parts = (one_of(NAMES), claim, prop_oneof![alone, csi]);
    parts.prop_map(|(name, claim, secrets)| Volume {
        name,
        claim,
        secrets,
    })
}

fn bound(namespace: impl Strategy<Value = String>) -> impl Strategy<Value = Bound> {
    let node = prop_oneof![1 => Just(String::new()), 6 => one_of(NODES)];
    (namespace, one_of(NAMES), node).prop_map(|(namespace, name, node)| Bound {
        namespace,
        name,
        node,
    })
}

const VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];
const USERS: &[&str] = &[
    "alice",
    "x",
    "system:node:n1",
    "system:node:",
    "system:serviceaccount:a:x",
    "system:serviceaccount:b:x",
];
const GROUPS: &[&str] = &["dev", "x", "system:nodes", "system:serviceaccounts:a"];
/// Resource, subresource, group.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("secrets", "", ""),
    ("configmaps", "", ""),
    ("pods", "", ""),
    ("pods", "status", ""),
    ("pods", "eviction", ""),
    ("pods", "log", ""),
    ("nodes", "", ""),
    ("nodes", "status", ""),
    ("persistentvolumeclaims", "", ""),
    ("persistentvolumeclaims", "status", ""),
    ("persistentvolumes", "", ""),
    ("serviceaccounts", "", ""),
    ("serviceaccounts", "token", ""),
    ("services", "", ""),
    ("endpoints", "", ""),
    ("events", "", ""),
    ("events", "", "events.k8s.io"),
    ("resourceclaims", "", "resource.k8s.io"),
    ("resourceslices", "", "resource.k8s.io"),
    ("resourceslices", "status", "resource.k8s.io"),
    ("volumeattachments", "", "storage.k8s.io"),
    ("csinodes", "", "storage.k8s.io"),
    ("csidrivers", "", "storage.k8s.io"),
    ("leases", "", "coordination.k8s.io"),
    ("leases", "log", "coordination.k8s.io"),
    ("podcertificaterequests", "", "certificates.k8s.io"),
    ("podcertificaterequests", "status", "certificates.k8s.io"),
    ("certificatesigningrequests", "", "certificates.k8s.io"),
    ("clustertrustbundles", "", "certificates.k8s.io"),
    ("runtimeclasses", "", "node.k8s.io"),
    ("tokenreviews", "", "authentication.k8s.io"),
    ("subjectaccessreviews", "", "authorization.k8s.io"),
    ("deployments", "", "apps"),
    ("deployments", "log", "apps"),
    ("secrets", "", "apps"),
];
const RULE_RESOURCES: &[&str] = &[
    "secrets",
    "pods",
    "pods/log",
    "*/log",
    "*",
    "deployments",
    "configmaps",
    "nodes",
    "*/status",
];
const PATHS: &[&str] = &["/healthz", "/healthz/etcd", "/", "/metrics"];

fn rule() -> impl Strategy<Value = Rule> {
    let verbs = prop_oneof![Just(vec!["*".to_owned()]), some_of(VERBS)];
    let parts = (
        verbs,
        prop_oneof![
            Just(vec![String::new()]),
            some_of(&["", "apps", "*", "resource.k8s.io"])
        ],
        prop_oneof![2 => some_of(RULE_RESOURCES), 1 => Just(vec!["*".to_owned()])],
        prop_oneof![2 => Just(Vec::new()), 1 => some_of(NAMES)],
        some_of(&[
            "/healthz",
            "/healthz/*",
            "*",
            "/met**",
            "/healthz/etcd",
            "/x*y",
        ]),
    );
    parts.prop_map(|(verbs, groups, resources, names, urls)| Rule {
        verbs,
        groups,
        resources,
        names,
        urls,
    })
}

/// None for what is cluster-wide.
fn scope() -> impl Strategy<Value = String> {
    one_of(&["", "a", "b"])
}

pub(crate) fn role() -> impl Strategy<Value = Role> {
    (scope(), one_of(&["r1", "r2"]), vec(rule(), 0..4)).prop_map(|(namespace, name, rules)| Role {
        namespace,
        name,
        rules,
    })
}

pub(crate) fn binding() -> impl Strategy<Value = Binding> {
    let kind = prop_oneof![8 => one_of(&["Role", "ClusterRole"]), 1 => one_of(&["role"])];
    let subject = prop_oneof![
        (Just("User".to_owned()), Just(String::new()), one_of(USERS)),
        (
            Just("Group".to_owned()),
            Just(String::new()),
            one_of(GROUPS)
        ),
        (Just("ServiceAccount".to_owned()), scope(), one_of(NAMES)),
        (Just("Robot".to_owned()), scope(), one_of(USERS)),
    ];
    let role = (kind, one_of(&["r1", "r2", "r3"]));
    let parts = (scope(), one_of(NAMES), role, vec(subject, 0..4));
    parts.prop_map(|(namespace, name, role, subjects)| Binding {
        namespace,
        name,
        role,
        subjects,
    })
}

pub(crate) fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        6 => pod().prop_map(Object::Pod),
        3 => volume().prop_map(Object::Volume),
        1 => bound(Just(String::new())).prop_map(Object::Attachment),
        1 => bound(Just(String::new())).prop_map(Object::Slice),
        1 => bound(one_of(NAMESPACES)).prop_map(Object::CertificateRequest),
        3 => role().prop_map(Object::Role),
        3 => binding().prop_map(Object::Binding),
    ]
}

fn policy() -> impl Strategy<Value = Object> {
    prop_oneof![
        role().prop_map(Object::Role),
        binding().prop_map(Object::Binding),
    ]
}

/// A change: an object that is new, changed or gone.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) object: Object,
    pub(crate) deleted: bool,
    /// In which encoding it is fed.
    pub(crate) protobuf: bool,
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    change_of(object())
}

/// A change of a role or a binding.
pub(crate) fn policy_change() -> impl Strategy<Value = Change> {
    change_of(policy())
}

fn change_of(object: impl Strategy<Value = Object>) -> impl Strategy<Value = Change> {
    let parts = (object, prop::bool::weighted(0.25), any::<bool>());
    parts.prop_map(|(object, deleted, protobuf)| Change {
        object,
        deleted,
        protobuf,
    })
}

/// A request of somebody who has groups, for something that rules speak of.
pub(crate) fn policy_ask() -> impl Strategy<Value = Ask> {
    let resources = [0, 2, 3, 5, 6, 31, 32, 33].map(|at| RESOURCES[at]);
    (
        ask(),
        select(resources.to_vec()),
        some_of(GROUPS),
        one_of(USERS),
    )
        .prop_map(|(ask, (resource, subresource, group), groups, user)| {
            let base = Ask {
                user,
                groups,
                ..ask
            };
            if !base.is_resource {
                return base;
            }
            Ask {
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                ..base
            }
        })
}

pub(crate) fn ask() -> impl Strategy<Value = Ask> {
    let groups = (some_of(GROUPS), prop::bool::weighted(0.02)).prop_map(|(mut groups, master)| {
        groups.extend(master.then(|| "system:masters".to_owned()));
        groups
    });
    let namespace = one_of(&["", "a", "b", "kube-node-lease"]);
    let name = prop_oneof![1 => Just(String::new()), 1 => one_of(NODES), 4 => one_of(NAMES)];
    let field = one_of(&["spec.nodeName", "nodeName", "metadata.name"]);
    let selector = vec((field, prop::bool::weighted(0.8), one_of(NODES)), 0..3);
    let nodes = one_of(NODES).prop_map(|node| {
        let groups = ["system:nodes", "system:authenticated"];
        (
            format!("system:node:{node}"),
            groups.map(str::to_owned).to_vec(),
        )
    });
    let user = prop_oneof![1 => (one_of(USERS), groups), 1 => nodes];
    let target = (select(RESOURCES), namespace, name, selector);
    let is_resource = prop::bool::weighted(0.9);
    (user, one_of(VERBS), is_resource, target, one_of(PATHS)).prop_map(
        |((user, groups), verb, is_resource, (resource, namespace, name, selector), path)| {
            let base = Ask {
                user,
                groups,
                verb,
                ..Ask::default()
            };
            if !is_resource {
                return Ask { path, ..base };
            }
            let (resource, subresource, group) = resource;
            Ask {
                is_resource,
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace,
                name,
                selector,
                ..base
            }
        },
    )
}
