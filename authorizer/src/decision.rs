//! What an authorizer answers.
//!
//! There is no "denied": neither the Node authorizer nor RBAC ever forbids what another allows.

use crate::attributes::Attributes;
use crate::facts::Source;
use crate::node::Refusal;

/// The answer of an authorizer, or of the whole chain. `Reason` is what it says about a request it
/// does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<Reason> {
    /// It may.
    Allow(Grant),
    /// Nothing says that it may. At the end of the chain that is a refusal.
    NoOpinion(Reason),
}

/// Why nobody allows a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What a 403 ends with; may be empty. Every reason is a line.
    pub reason: String,
    /// Whose objects on the ways to a node could have been another answer.
    graph: &'static [Source],
    /// Whose roles and bindings could.
    rbac: &'static [Source],
}

impl Denial {
    /// The denial of a request: the reasons of both authorizers, joined as the apiserver joins them
    /// (as `authorization/union/union.go`, 1.36).
    pub(crate) fn new(asks: &Attributes<'_>, node: Refusal<'_>, rbac: String) -> Self {
        let graph = match node {
            Refusal::Unrelated { sources, .. } => sources,
            Refusal::Silent
            | Refusal::Text(_)
            | Refusal::UnknownNode
            | Refusal::AllNodes { .. }
            | Refusal::OtherNode { .. }
            | Refusal::CertificateRequestVerb { .. } => &[],
        };
        let cluster_wide = &[Source::ClusterRoleBindings, Source::ClusterRoles];
        let all = &[
            Source::ClusterRoleBindings,
            Source::ClusterRoles,
            Source::RoleBindings,
            Source::Roles,
        ];
        Self {
            reason: match (node, rbac.is_empty()) {
                (Refusal::Silent, _) => rbac,
                (node, true) => node.to_string(),
                (node, false) => format!("{node}\n{rbac}"),
            },
            graph,
            rbac: if asks.namespace.is_empty() {
                cluster_wide
            } else {
                all
            },
        }
    }

    /// The sources whose objects could turn it into a "yes". Only with all of their objects up to
    /// a moment is it what an apiserver would have said then.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        self.graph.iter().chain(self.rbac).copied()
    }
}

/// What a right comes from, and with it what it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// Membership in `system:masters`. Depends on nothing.
    Masters,
    /// A rule for every node, or for the object that has the node's own name. Depends on nothing
    /// that was fed.
    NodeRule,
    /// A way through the graph from the object to the node. Depends on pods, persistent volumes,
    /// volume attachments, resource slices and pod certificate requests.
    NodeGraph,
    /// A role that is bound to the user. Depends on roles and bindings.
    Rbac,
}

impl Grant {
    /// A word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Masters => "masters",
            Self::NodeRule => "node_rule",
            Self::NodeGraph => "node_graph",
            Self::Rbac => "rbac",
        }
    }
}
