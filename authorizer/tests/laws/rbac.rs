//! RBAC by itself: whom a binding is for, what a rule allows, and the words for both.

use watershed_authorizer::{Authorizer, Source};

use crate::ask::{Ask, shown};
use crate::model::Object;
use crate::objects::{Binding, Role, Rule};
use crate::parity::feed;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
    Rule {
        verbs: texts(verbs),
        groups: texts(groups),
        resources: texts(resources),
        names: texts(names),
        urls: Vec::new(),
    }
}

fn urls(urls: &[&str]) -> Rule {
    Rule {
        verbs: texts(&["get"]),
        urls: texts(urls),
        ..Rule::default()
    }
}

fn role(namespace: &str, name: &str, rules: Vec<Rule>) -> Object {
    Object::Role(Role {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        rules,
    })
}

fn binding(key: (&str, &str), role: (&str, &str), subjects: &[(&str, &str, &str)]) -> Object {
    Object::Binding(Binding {
        namespace: key.0.to_owned(),
        name: key.1.to_owned(),
        role: (role.0.to_owned(), role.1.to_owned()),
        subjects: subjects
            .iter()
            .map(|&(kind, namespace, name)| {
                (kind.to_owned(), namespace.to_owned(), name.to_owned())
            })
            .collect(),
    })
}

const ALICE: &[(&str, &str, &str)] = &[("User", "", "alice")];

/// Alice's cluster role has one rule.
fn alice_may(rule: Rule) -> Authorizer {
    let authorizer = Authorizer::default();
    feed(&authorizer, &role("", "r", vec![rule]));
    feed(
        &authorizer,
        &binding(("", "b"), ("ClusterRole", "r"), ALICE),
    );
    authorizer
}

#[test]
fn rules_match_by_star_by_name_and_by_subresource() {
    let table = [
        (rule(&["get"], &[""], &["pods"], &[]), "get pods ns/a", true),
        (
            rule(&["get"], &[""], &["pods"], &[]),
            "list pods ns/",
            false,
        ),
        (
            rule(&["get"], &[""], &["pods"], &[]),
            "get pods@apps ns/a",
            false,
        ),
        (
            rule(&["get"], &[""], &["pods"], &[]),
            "get pods/log ns/a",
            false,
        ),
        (
            rule(&["*"], &["*"], &["*"], &[]),
            "deletecollection any/sub@any",
            true,
        ),
        (rule(&["*"], &["*"], &["*"], &[]), "get /healthz", false),
        (
            rule(&["get"], &[""], &["pods/log"], &[]),
            "get pods/log ns/a",
            true,
        ),
        (
            rule(&["get"], &[""], &["pods/log"], &[]),
            "get pods ns/a",
            false,
        ),
        (
            rule(&["get"], &[""], &["*/log"], &[]),
            "get pods/log ns/a",
            true,
        ),
        (
            rule(&["get"], &[""], &["*/log"], &[]),
            "get pods/backlog ns/a",
            false,
        ),
        (
            rule(&["get"], &[""], &["*/log"], &[]),
            "get pods ns/a",
            false,
        ),
        (
            rule(&["get"], &[""], &["pods/*"], &[]),
            "get pods/log ns/a",
            false,
        ),
        (
            rule(&["get"], &[""], &["pods"], &["a"]),
            "get pods ns/a",
            true,
        ),
        (
            rule(&["get"], &[""], &["pods"], &["a"]),
            "get pods ns/b",
            false,
        ),
        (
            rule(&["list"], &[""], &["pods"], &["a"]),
            "list pods ns/",
            false,
        ),
        (
            rule(&["list"], &[""], &["pods"], &["a"]),
            "list pods ns/a ?metadata.name=a",
            true,
        ),
        (
            rule(&["list"], &[""], &["pods"], &["*"]),
            "list pods ns/a",
            false,
        ),
        (
            rule(&["list"], &[""], &["pods"], &[]),
            "list pods ?spec.nodeName=n1",
            true,
        ),
        (rule(&["get"], &[], &["pods"], &[]), "get pods ns/a", false),
        (urls(&["/healthz"]), "get /healthz", true),
        (urls(&["/healthz"]), "get /healthz/etcd", false),
        (urls(&["/healthz/*"]), "get /healthz/etcd", true),
        (urls(&["/healthz/*"]), "get /healthz", false),
        (urls(&["/heal***"]), "get /healthz", true),
        (urls(&["*"]), "get /metrics", true),
        (urls(&["*"]), "post /metrics", false),
        (urls(&["/*/etcd"]), "get /healthz/etcd", false),
        (urls(&["*"]), "get pods ns/a", false),
    ];
    for (rule, request, expected) in table {
        let authorizer = alice_may(rule.clone());
        let ask = Ask::new(request).by("alice", &[]);
        assert_eq!(ask.allowed(&authorizer), expected, "{request} by {rule:?}");
        assert!(
            !Ask::new(request).by("bob", &[]).allowed(&authorizer),
            "{request} by bob"
        );
    }
}

#[test]
fn bindings_are_for_users_groups_and_service_accounts() {
    let agent = "system:serviceaccount:ns:agent";
    let table = [
        (("", "User", "", "alice"), "alice", &[][..], true),
        (("", "User", "", "Alice"), "alice", &[], false),
        (("", "User", "", agent), agent, &[], true),
        (("", "Group", "", "dev"), "alice", &["ops", "dev"], true),
        (("", "Group", "", "alice"), "alice", &[], false),
        (("", "User", "", "dev"), "alice", &["dev"], false),
        (("", "ServiceAccount", "ns", "agent"), agent, &[], true),
        (("", "ServiceAccount", "other", "agent"), agent, &[], false),
        (("", "ServiceAccount", "", "agent"), agent, &[], false),
        (
            ("", "ServiceAccount", "", "agent"),
            "system:serviceaccount::agent",
            &[],
            false,
        ),
        (("ns", "ServiceAccount", "", "agent"), agent, &[], true),
        (
            ("ns", "ServiceAccount", "other", "agent"),
            agent,
            &[],
            false,
        ),
        (("", "ServiceAccount", "ns", "agent"), "agent", &[], false),
        (
            ("", "Group", "", "system:serviceaccounts:ns"),
            agent,
            &["system:serviceaccounts:ns"],
            true,
        ),
        (("", "Robot", "", "alice"), "alice", &[], false),
    ];
    for ((namespace, kind, subject_namespace, name), user, groups, expected) in table {
        let authorizer = Authorizer::default();
        feed(
            &authorizer,
            &role("", "r", vec![rule(&["get"], &[""], &["pods"], &[])]),
        );
        let subject = [(kind, subject_namespace, name)];
        feed(
            &authorizer,
            &binding((namespace, "b"), ("ClusterRole", "r"), &subject),
        );
        let ask = Ask::new("get pods ns/a").by(user, groups);
        assert_eq!(
            ask.allowed(&authorizer),
            expected,
            "{subject:?} in {namespace:?}, {user}"
        );
    }
}

#[test]
fn a_role_binding_gives_within_its_namespace_only() {
    let authorizer = Authorizer::default();
    let rules = || vec![rule(&["*"], &["*"], &["*"], &[]), urls(&["*"])];
    feed(&authorizer, &role("", "all", rules()));
    feed(&authorizer, &role("b", "all", rules()));
    feed(
        &authorizer,
        &binding(("a", "x"), ("ClusterRole", "all"), ALICE),
    );
    feed(&authorizer, &binding(("b", "x"), ("Role", "all"), ALICE));
    feed(&authorizer, &binding(("c", "x"), ("Role", "all"), ALICE)); // of another namespace
    let table = [
        ("get pods a/x", "rbac"),
        ("get pods b/x", "rbac"),
        ("get namespaces b/b", "rbac"),
        (
            "get pods c/x",
            r#"no: RBAC: role.rbac.authorization.k8s.io "all" not found"#,
        ),
        ("list pods", "no: "),
        ("get nodes a", "no: "),
        ("get /healthz", "no: "),
    ];
    for (request, expected) in table {
        let decision = Ask::new(request).by("alice", &[]).decide(&authorizer);
        assert_eq!(shown(&decision), expected, "{request}");
    }
}

#[test]
fn what_is_missing_is_said_after_what_the_node_authorizer_says() {
    let authorizer = Authorizer::default();
    let nodes = &[("Group", "", "system:nodes")][..];
    feed(
        &authorizer,
        &binding(("", "1"), ("ClusterRole", "gone"), nodes),
    );
    let ask = Ask::new("get secrets ns/it").by_node("n1");
    let expected = "no: no relationship found between node 'n1' and this object\n\
                    RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found";
    assert_eq!(shown(&ask.decide(&authorizer)), expected);
    feed(
        &authorizer,
        &binding(("", "2"), ("ClusterRole", "gone"), nodes),
    );
    feed(&authorizer, &binding(("ns", "3"), ("Role", "gone"), nodes));
    feed(
        &authorizer,
        &binding(("ns", "4"), ("Rôle\n", "gone"), nodes),
    );
    let expected = "no: no relationship found between node 'n1' and this object\n\
                    RBAC: [clusterrole.rbac.authorization.k8s.io \"gone\" not found, \
                    role.rbac.authorization.k8s.io \"gone\" not found, \
                    unsupported role reference kind: \"Rôle\\n\"]";
    assert_eq!(shown(&ask.decide(&authorizer)), expected);
}

#[test]
fn an_allow_names_the_first_subject_that_applies() {
    let authorizer = Authorizer::default();
    let subjects = [
        ("User", "", "bob"),
        ("Group", "", "de\"v"),
        ("User", "", "alice"),
        ("ServiceAccount", "", "agent"),
    ];
    feed(
        &authorizer,
        &role("", "r", vec![rule(&["get"], &[""], &["pods"], &[])]),
    );
    feed(
        &authorizer,
        &binding(("ns", "b"), ("ClusterRole", "r"), &subjects),
    );
    let explain = |user: &str, groups: &[&str]| {
        let ask = Ask::new("get pods ns/a").by(user, groups);
        ask.with(|asks| authorizer.explain(asks))
    };
    let begin = r#"RBAC: allowed by RoleBinding "b/ns" of ClusterRole "r" to "#;
    let table = [
        ("alice", &[][..], Some(r#"User "alice""#)),
        ("alice", &["de\"v"], Some(r#"Group "de\"v""#)),
        (
            "system:serviceaccount:ns:agent",
            &[],
            Some(r#"ServiceAccount "agent/ns""#),
        ),
        ("eve", &[], None),
    ];
    for (user, groups, expected) in table {
        let expected = expected.map(|subject| format!("{begin}{subject}"));
        assert_eq!(explain(user, groups), expected, "{user}");
    }
    feed(
        &authorizer,
        &binding(("", "b"), ("ClusterRole", "r"), &subjects),
    );
    let expected = r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to User "alice""#;
    assert_eq!(explain("alice", &[]).as_deref(), Some(expected));
}

#[test]
fn what_the_graph_refuses_a_role_may_allow() {
    let authorizer = Authorizer::default();
    let kubeadm = rule(&["get"], &[""], &["configmaps"], &["kubeadm-config"]);
    feed(&authorizer, &role("kube-system", "kubeadm", vec![kubeadm]));
    let nodes = [("Group", "", "system:nodes")];
    feed(
        &authorizer,
        &binding(("kube-system", "kubeadm"), ("Role", "kubeadm"), &nodes),
    );
    let ask = Ask::new("get configmaps kube-system/kubeadm-config").by_node("n1");
    assert_eq!(shown(&ask.decide(&authorizer)), "rbac");
    let other = Ask::new("get configmaps kube-system/other").by_node("n1");
    assert!(!other.allowed(&authorizer));
}

#[test]
fn kube_proxy_needs_nothing_but_its_role() {
    let authorizer = Authorizer::default();
    let rules = vec![
        rule(&["list", "watch"], &[""], &["services", "endpoints"], &[]),
        rule(&["get", "list", "watch"], &[""], &["nodes"], &[]),
        rule(
            &["list", "watch"],
            &["discovery.k8s.io"],
            &["endpointslices"],
            &[],
        ),
    ];
    feed(&authorizer, &role("", "system:node-proxier", rules));
    let subjects = [
        ("User", "", "system:kube-proxy"),
        ("ServiceAccount", "kube-system", "kube-proxy"),
    ];
    let role = ("ClusterRole", "system:node-proxier");
    feed(&authorizer, &binding(("", "kube-proxy"), role, &subjects));
    for user in [
        "system:kube-proxy",
        "system:serviceaccount:kube-system:kube-proxy",
    ] {
        let may = |request: &str| Ask::new(request).by(user, &[]).allowed(&authorizer);
        assert!(may("watch services ?spec.clusterIP!=None"), "{user}");
        assert!(may("watch endpointslices@discovery.k8s.io"), "{user}");
        assert!(may("watch nodes n1 ?metadata.name=n1"), "{user}");
        assert!(!may("get services ns/a"), "{user}");
        assert!(!may("watch pods"), "{user}");
    }
}

#[test]
fn a_binding_works_in_whatever_order_it_and_its_role_come() {
    let authorizer = Authorizer::default();
    let ask = Ask::new("get pods ns/a").by("alice", &[]);
    let may = || ask.allowed(&authorizer);
    let pods = || role("", "r", vec![rule(&["get"], &[""], &["pods"], &[])]);
    feed(
        &authorizer,
        &binding(("", "b"), ("ClusterRole", "r"), ALICE),
    );
    assert!(!may());
    feed(&authorizer, &pods());
    assert!(may());
    authorizer.delete(Source::ClusterRoles, "", "r");
    assert!(!may());
    feed(&authorizer, &pods());
    assert!(may());
    authorizer.delete(Source::ClusterRoleBindings, "", "b");
    assert!(!may());
}
