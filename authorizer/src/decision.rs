//! What an authorizer answers.
//!
//! There is no "denied": neither the Node authorizer nor RBAC ever forbids what another allows.

/// The answer of an authorizer, or of the whole chain. `Reason` is what it says about a request it
/// does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<Reason> {
    /// It may.
    Allow(Grant),
    /// Nothing says that it may. At the end of the chain that is a refusal.
    NoOpinion(Reason),
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
