//! The node authorizer: what `system:node:NAME` in `system:nodes` may do.
//!
//! Owns the rule table and the reason texts of `plugin/pkg/auth/authorizer/node`, 1.36, with the
//! feature gates at their defaults: there are no rules about pod certificate requests and cluster
//! trust bundles. Never denies: what it does not allow may still be allowed by RBAC. What a node may write where it is
//! allowed to is narrowed by admission, not here.
//!
//! Invariant: nothing about another node is allowed except through a pod bound to this one.

use std::sync::LazyLock;

use super::graph::{Graph, Used};
use super::rbac::Rule;
use super::{Attributes, Decision, ResourceTarget, Target};

pub(super) fn authorize(graph: &Graph, attributes: &Attributes) -> Decision {
    let node = attributes.user.name.strip_prefix("system:node:");
    let Some(node) = node.filter(|_| attributes.user.is_in("system:nodes")) else {
        return Decision::no_opinion("");
    };
    if node.is_empty() {
        return Decision::no_opinion("unknown node for user \"system:node:\"");
    }
    let Target::Resource(target) = &attributes.target else {
        return static_rules(attributes);
    };
    let question = Question {
        graph,
        node,
        verb: &attributes.verb,
        target,
    };
    match (target.group.as_str(), target.resource.as_str()) {
        ("", "secrets") => question.read_namespaced(Used::Secret),
        ("", "configmaps") => question.read_namespaced(Used::ConfigMap),
        ("", "persistentvolumeclaims") if target.subresource == "status" => {
            question.update_status(Used::Claim)
        }
        ("", "persistentvolumeclaims") => question.get(Used::Claim),
        ("", "persistentvolumes") => question.get_if(graph.volume_on(&target.name, node)),
        ("resource.k8s.io", "resourceclaims") => question.get(Used::ResourceClaim),
        ("storage.k8s.io", "volumeattachments") => {
            question.get_if(graph.attachment_on(&target.name, node))
        }
        ("", "serviceaccounts") if attributes.verb == "get" && target.subresource.is_empty() => {
            question.read_namespaced(Used::ServiceAccount)
        }
        ("", "serviceaccounts") => question.create_token(),
        ("coordination.k8s.io", "leases") => question.lease(),
        ("storage.k8s.io", "csinodes") => question.csi_node(),
        ("resource.k8s.io", "resourceslices") => question.resource_slice(),
        ("", "nodes") => question.own_node(),
        ("", "pods") => question.pod(),
        _ => static_rules(attributes),
    }
}

#[derive(Clone, Copy)]
struct Question<'a> {
    graph: &'a Graph,
    node: &'a str,
    verb: &'a str,
    target: &'a ResourceTarget,
}

impl Question<'_> {
    fn read_namespaced(self, used: Used) -> Decision {
        if !matches!(self.verb, "get" | "list" | "watch") {
            return Decision::no_opinion("can only read resources of this type");
        }
        if !self.target.subresource.is_empty() {
            return Decision::no_opinion("cannot read subresource");
        }
        if self.target.namespace.is_empty() {
            return Decision::no_opinion("can only read namespaced object of this type");
        }
        self.used(used)
    }

    fn get(self, used: Used) -> Decision {
        let refused = self.refuse_get();
        refused.unwrap_or_else(|| self.used(used))
    }

    fn get_if(self, related: bool) -> Decision {
        self.refuse_get().unwrap_or_else(|| self.related(related))
    }

    fn refuse_get(self) -> Option<Decision> {
        if self.verb != "get" {
            let reason = "can only get individual resources of this type";
            return Some(Decision::no_opinion(reason));
        }
        (!self.target.subresource.is_empty())
            .then(|| Decision::no_opinion("cannot get subresource"))
    }

    fn update_status(self, used: Used) -> Decision {
        if !matches!(self.verb, "update" | "patch") {
            return Decision::no_opinion("can only get/update/patch this type");
        }
        self.used(used)
    }

    fn create_token(self) -> Decision {
        if self.verb != "create" || self.target.name.is_empty() {
            let reason = "can only create tokens for individual service accounts";
            return Decision::no_opinion(reason);
        }
        if self.target.subresource != "token" {
            let reason = "can only create token subresource of serviceaccount";
            return Decision::no_opinion(reason);
        }
        self.used(Used::ServiceAccount)
    }

    fn lease(self) -> Decision {
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            let reason = "can only get, create, update, patch, or delete a node lease";
            return Decision::no_opinion(reason);
        }
        if self.target.namespace != "kube-node-lease" {
            let reason = "can only access leases in the \"kube-node-lease\" system namespace";
            return Decision::no_opinion(reason);
        }
        if self.verb != "create" && self.target.name != self.node {
            let reason = "can only access node lease with the same name as the requesting node";
            return Decision::no_opinion(reason);
        }
        Decision::allow("")
    }

    fn csi_node(self) -> Decision {
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            let reason = "can only get, create, update, patch, or delete a CSINode";
            return Decision::no_opinion(reason);
        }
        if !self.target.subresource.is_empty() {
            return Decision::no_opinion("cannot authorize CSINode subresources");
        }
        if self.verb != "create" && self.target.name != self.node {
            let reason = "can only access CSINode with the same name as the requesting node";
            return Decision::no_opinion(reason);
        }
        Decision::allow("")
    }

    fn resource_slice(self) -> Decision {
        if !self.target.subresource.is_empty() {
            return Decision::no_opinion("cannot authorize ResourceSlice subresources");
        }
        match self.verb {
            "create" => Decision::allow(""),
            "get" | "update" | "patch" | "delete" => {
                self.related(self.graph.slice_on(&self.target.name, self.node))
            }
            "list" | "watch" | "deletecollection" if self.selects_own() => Decision::allow(""),
            "list" | "watch" | "deletecollection" => Decision::no_opinion(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => Decision::no_opinion(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, \
                 create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn own_node(self) -> Decision {
        let (node, name) = (self.node, &self.target.name);
        match (self.target.subresource.as_str(), self.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => {
                Decision::allow("")
            }
            ("", "get" | "list" | "watch") if name == node => Decision::allow(""),
            ("", "get" | "list" | "watch") if name.is_empty() => Decision::no_opinion(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            ("", "get" | "list" | "watch") => Decision::no_opinion(format!(
                "node '{node}' cannot read '{name}', only its own Node object"
            )),
            _ => Decision::no_opinion(""),
        }
    }

    fn pod(self) -> Decision {
        let target = self.target;
        match (target.subresource.as_str(), self.verb) {
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Decision::allow("")
            }
            ("", "list" | "watch") if self.selects_own() => Decision::allow(""),
            ("", "list" | "watch") if target.name.is_empty() => {
                Decision::no_opinion("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "get" | "list" | "watch") => self.related(self.graph.pod_on(
                &target.namespace,
                &target.name,
                self.node,
            )),
            _ => Decision::no_opinion(""),
        }
    }

    /// Whether one term of the field selector demands `spec.nodeName` to be this node.
    fn selects_own(self) -> bool {
        self.target
            .fields
            .iter()
            .any(|term| term.equals && term.key == "spec.nodeName" && term.value == self.node)
    }

    fn used(self, used: Used) -> Decision {
        let target = self.target;
        self.related(
            self.graph
                .used_on(used, &target.namespace, &target.name, self.node),
        )
    }

    fn related(self, related: bool) -> Decision {
        if self.target.name.is_empty() {
            return Decision::no_opinion("No Object name found");
        }
        if related {
            return Decision::allow("");
        }
        let node = self.node;
        Decision::no_opinion(format!(
            "no relationship found between node '{node}' and this object"
        ))
    }
}

/// What every node may do, whatever runs on it.
fn static_rules(attributes: &Attributes) -> Decision {
    if STATIC_RULES.iter().any(|rule| rule.allows(attributes)) {
        Decision::allow("")
    } else {
        Decision::no_opinion("")
    }
}

static STATIC_RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let read: &[&str] = &["get", "list", "watch"];
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| Rule {
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        groups: vec![group.to_owned()],
        resources: resources
            .iter()
            .map(|resource| (*resource).to_owned())
            .collect(),
        ..Rule::default()
    };
    vec![
        rule("", &["services"], read),
        rule("", &["endpoints"], &["get"]),
        rule("", &["events"], &["create", "update", "patch"]),
        rule("events.k8s.io", &["events"], &["create", "update", "patch"]),
        rule("storage.k8s.io", &["csidrivers"], read),
        rule("node.k8s.io", &["runtimeclasses"], read),
        rule(
            "certificates.k8s.io",
            &["certificatesigningrequests"],
            &["create", "get", "list", "watch"],
        ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule(
            "authorization.k8s.io",
            &["subjectaccessreviews", "localsubjectaccessreviews"],
            &["create"],
        ),
    ]
});
