//! What a caller may do: `system:masters`, the node authorizer, then RBAC; nobody else.
//!
//! Owns the order of the authorizers and the joining of their reasons, as kube-apiserver 1.36 with
//! `--authorization-mode=Node,RBAC`: the first that allows wins, none ever denies, and a request
//! nobody allows is refused with every reason that was given.
//! Refuses to read the store: it is told of every change ([`Authorizer::observe`]) and keeps
//! indexes, so that a decision costs the same with ten thousand pods as with one. An object's
//! effect is in force before its event can reach a watcher, because the writer calls `observe`
//! inside the commit.
//!
//! Invariant: a decision is a pure function of the attributes and the observed objects.

mod graph;
mod node;
mod rbac;

use parking_lot::RwLock;
use serde_json::Value;

use super::authn::UserInfo;

/// One question to the authorizers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who asks.
    pub user: UserInfo,
    /// The verb, such as `list`; the lower-case HTTP method for a path.
    pub verb: String,
    /// What the request is about.
    pub target: Target,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path outside the resource tree, such as `/metrics`.
    Path(String),
    /// A resource.
    Resource(ResourceTarget),
}

impl Default for Target {
    fn default() -> Self {
        Self::Path(String::new())
    }
}

/// The resource part of a request, as RequestInfo has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceTarget {
    /// Namespace; empty at the cluster scope.
    pub namespace: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Resource, plural.
    pub resource: String,
    /// Subresource; empty when there is none.
    pub subresource: String,
    /// Name; for lists and watches that of a `metadata.name=` selector.
    pub name: String,
    /// The terms of the field selector that a rule may rely on.
    pub fields: Vec<FieldTerm>,
}

/// A term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field, such as `spec.nodeName`.
    pub key: String,
    /// The value compared with.
    pub value: String,
    /// Whether the term demands equality; otherwise it demands difference.
    pub equals: bool,
}

/// The answer of the authorizers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may proceed.
    pub allowed: bool,
    /// Why; often empty.
    pub reason: String,
}

impl Decision {
    fn allow(reason: impl Into<String>) -> Self {
        Self {
            allowed: true,
            reason: reason.into(),
        }
    }

    fn no_opinion(reason: impl Into<String>) -> Self {
        Self {
            allowed: false,
            reason: reason.into(),
        }
    }
}

/// Decides requests by the objects it has been told of.
#[derive(Debug, Default)]
pub struct Authorizer {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    graph: graph::Graph,
    rbac: rbac::Rules,
}

impl Authorizer {
    /// An authorizer that knows of no object yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a change: `object` is the new state, `None` after a deletion.
    pub fn observe(
        &self,
        group: &str,
        resource: &str,
        (namespace, name): (&str, &str),
        object: Option<&Value>,
    ) {
        match group {
            "rbac.authorization.k8s.io" => {
                self.state
                    .write()
                    .rbac
                    .observe(resource, namespace, name, object);
            }
            _ if graph::Graph::cares(group, resource) => {
                self.state
                    .write()
                    .graph
                    .observe(resource, namespace, name, object);
            }
            _ => {}
        }
    }

    /// The RBAC rules that hold for a user in a namespace: of resources, and of paths.
    #[must_use]
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        self.state.read().rbac.of_user(user, namespace)
    }

    /// Decides one request.
    #[must_use]
    pub fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.is_in("system:masters") {
            return Decision::allow("");
        }
        let state = self.state.read();
        let node = node::authorize(&state.graph, attributes);
        if node.allowed {
            return node;
        }
        let rbac = state.rbac.authorize(attributes);
        if rbac.allowed {
            return rbac;
        }
        let reasons = [node.reason, rbac.reason];
        let reasons: Vec<_> = reasons
            .into_iter()
            .filter(|reason| !reason.is_empty())
            .collect();
        Decision::no_opinion(reasons.join("\n"))
    }
}

impl Attributes {
    /// The text of a refusal after `forbidden: `, without reason or sanitising, as
    /// `responsewriters/errors.go` builds it.
    #[must_use]
    pub fn refusal(&self) -> String {
        let user = go_quote(&self.user.name);
        let verb = &self.verb;
        let target = match &self.target {
            Target::Path(path) => {
                return format!("User {user} cannot {verb} path {}", go_quote(path));
            }
            Target::Resource(target) => target,
        };
        let resource = if target.subresource.is_empty() {
            target.resource.clone()
        } else {
            format!("{}/{}", target.resource, target.subresource)
        };
        let (resource, group) = (go_quote(&resource), go_quote(&target.group));
        let scope = if target.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", go_quote(&target.namespace))
        };
        format!("User {user} cannot {verb} resource {resource} in API group {group} {scope}")
    }
}

/// A string as Go's `%q` prints it.
pub(super) fn go_quote(text: &str) -> String {
    use std::fmt::Write as _;

    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if c.is_ascii_control() => {
                write!(quoted, "\\x{:02x}", u32::from(c)).expect("a String takes any text");
            }
            c if c.is_control() => {
                write!(quoted, "\\u{:04x}", u32::from(c)).expect("a String takes any text");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    fn ask(user: &UserInfo, verb: &str, namespace: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            user: user.clone(),
            verb: verb.to_owned(),
            target: Target::Resource(ResourceTarget {
                namespace: namespace.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                name: name.to_owned(),
                ..ResourceTarget::default()
            }),
        }
    }

    fn with_role(resource_names: &Value) -> Authorizer {
        let authorizer = Authorizer::new();
        let group = "rbac.authorization.k8s.io";
        let role = json!({"rules": [{
            "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"],
            "resourceNames": resource_names,
        }]});
        authorizer.observe(group, "roles", ("ns", "r"), Some(&role));
        let binding = json!({
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "alice"}],
        });
        authorizer.observe(group, "rolebindings", ("ns", "b"), Some(&binding));
        authorizer
    }

    #[test]
    fn a_role_binding_allows_in_its_namespace_and_says_so() {
        let authorizer = with_role(&json!([]));
        let alice = user("alice", &["dev"]);
        let decision = authorizer.authorize(&ask(&alice, "get", "ns", "configmaps", "x"));
        let reason = "RBAC: allowed by RoleBinding \"b/ns\" of Role \"r\" to User \"alice\"";
        assert_eq!(decision, Decision::allow(reason));
        for refused in [
            ask(&alice, "get", "other", "configmaps", "x"),
            ask(&alice, "get", "ns", "configmaps/status", "x"),
            ask(&alice, "delete", "ns", "configmaps", "x"),
            ask(&user("bob", &[]), "get", "ns", "configmaps", "x"),
        ] {
            assert_eq!(authorizer.authorize(&refused), Decision::no_opinion(""));
        }
    }

    #[test]
    fn resource_names_never_allow_a_request_without_a_name() {
        let authorizer = with_role(&json!(["x"]));
        let alice = user("alice", &[]);
        let allowed = |name| {
            authorizer
                .authorize(&ask(&alice, "list", "ns", "configmaps", name))
                .allowed
        };
        assert_eq!(
            [allowed("x"), allowed("y"), allowed("")],
            [true, false, false]
        );
    }

    #[test]
    fn a_revoked_binding_no_longer_allows() {
        let authorizer = with_role(&json!([]));
        let question = ask(&user("alice", &[]), "get", "ns", "configmaps", "x");
        authorizer.observe(
            "rbac.authorization.k8s.io",
            "rolebindings",
            ("ns", "b"),
            None,
        );
        assert!(!authorizer.authorize(&question).allowed);
    }

    #[test]
    fn a_node_reads_the_secrets_of_its_pods_only() {
        let authorizer = Authorizer::new();
        let pod = json!({"spec": {"nodeName": "n1", "containers": [], "volumes": [
            {"name": "v", "secret": {"secretName": "s1"}},
        ]}});
        authorizer.observe("", "pods", ("ns", "p"), Some(&pod));
        let node = |name: &str| user(&format!("system:node:{name}"), &["system:nodes"]);
        let get = |on, name| authorizer.authorize(&ask(&node(on), "get", "ns", "secrets", name));
        assert!(get("n1", "s1").allowed);
        let reason = "no relationship found between node 'n2' and this object";
        assert_eq!(get("n2", "s1"), Decision::no_opinion(reason));
        assert!(!get("n1", "s2").allowed);
        authorizer.observe("", "pods", ("ns", "p"), None);
        assert!(!get("n1", "s1").allowed);
    }

    #[test]
    fn a_secret_is_reachable_through_volume_and_claim() {
        let authorizer = Authorizer::new();
        let pod = json!({"spec": {"nodeName": "n1", "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "c"}},
        ]}});
        authorizer.observe("", "pods", ("ns", "p"), Some(&pod));
        let volume = json!({"spec": {
            "claimRef": {"namespace": "ns", "name": "c"},
            "csi": {"nodePublishSecretRef": {"name": "s", "namespace": "vault"}},
        }});
        authorizer.observe("", "persistentvolumes", ("", "pv"), Some(&volume));
        let node = user("system:node:n1", &["system:nodes"]);
        assert!(
            authorizer
                .authorize(&ask(&node, "get", "", "persistentvolumes", "pv"))
                .allowed
        );
        assert!(
            authorizer
                .authorize(&ask(&node, "get", "vault", "secrets", "s"))
                .allowed
        );
    }

    #[test]
    fn a_node_lists_pods_by_its_own_name_only() {
        let authorizer = Authorizer::new();
        let node = user("system:node:n1", &["system:nodes"]);
        let list = |terms: &[(&str, &str, bool)]| {
            let mut attributes = ask(&node, "list", "", "pods", "");
            if let Target::Resource(target) = &mut attributes.target {
                target.fields = terms
                    .iter()
                    .map(|(key, value, equals)| FieldTerm {
                        key: (*key).to_owned(),
                        value: (*value).to_owned(),
                        equals: *equals,
                    })
                    .collect();
            }
            authorizer.authorize(&attributes).allowed
        };
        assert!(list(&[("spec.nodeName", "n1", true)]));
        assert!(list(&[
            ("spec.nodeName", "n1", true),
            ("status.phase", "Running", true)
        ]));
        assert!(!list(&[]));
        assert!(!list(&[("spec.nodeName", "n2", true)]));
        assert!(!list(&[("spec.nodeName", "n1", false)]));
        assert!(!list(&[("spec.host", "n1", true)]));
    }

    #[test]
    fn a_node_touches_its_own_lease_only() {
        let authorizer = Authorizer::new();
        let node = user("system:node:n1", &["system:nodes"]);
        let reason = |verb, name| {
            let mut attributes = ask(&node, verb, "kube-node-lease", "leases", name);
            if let Target::Resource(target) = &mut attributes.target {
                target.group = "coordination.k8s.io".to_owned();
            }
            let decision = authorizer.authorize(&attributes);
            (!decision.allowed).then_some(decision.reason)
        };
        assert_eq!(reason("update", "n1"), None);
        assert_eq!(reason("create", ""), None);
        assert_eq!(
            reason("update", "n2").as_deref(),
            Some("can only access node lease with the same name as the requesting node")
        );
        assert_eq!(
            reason("list", "").as_deref(),
            Some("can only get, create, update, patch, or delete a node lease")
        );
    }
}
