//! Local authorization, as kube-apiserver with `--authorization-mode=Node,RBAC` would decide.
//!
//! ```text
//!  the bytes of an object ──► Facts::read ──► Authorizer::upsert ──► Graph   pods, volumes, …
//!                                                                └─► Rbac    roles, bindings
//!  Attributes of a request ──► Authorizer::decide ──► masters, node rules and graph, RBAC
//!                                                       └─► Decision: by what grant, or why not
//! ```
//!
//! [`Authorizer`] is the whole of it. Whoever watches the resources of [`Source`] feeds it every
//! object *before* others hear of the object, so that a kubelet that hears of its pod may read what
//! the pod mentions. It may be asked from any thread meanwhile.
//!
//! What it owns: the facts that decisions depend on, and the rules. What it refuses: sockets, tasks,
//! time, and any notion of how complete or fresh its facts are. A "yes" is as good as the facts it
//! came from, which [`Grant`] names; a "no" may be given to a client only if all facts were fed that
//! an apiserver would have had, of the sources that [`Denial`] names. What [`Facts::read`] cannot
//! read makes the facts incomplete.
//!
//! ```
//! use watershed_authorizer::{Attributes, Authorizer, Decision, Facts, Grant, Source, User};
//!
//! let authorizer = Authorizer::default();
//! let pod = br#"{"metadata":{"namespace":"ns","name":"p"},
//!                "spec":{"nodeName":"n1","imagePullSecrets":[{"name":"registry"}]}}"#;
//! authorizer.upsert(Facts::read(Source::Pods, pod)?);
//!
//! let groups = ["system:nodes".to_owned()];
//! let asks = Attributes {
//!     user: User { name: "system:node:n1", groups: &groups },
//!     verb: "get",
//!     is_resource: true,
//!     group: "",
//!     resource: "secrets",
//!     subresource: "",
//!     namespace: "ns",
//!     name: "registry",
//!     path: "",
//!     selects: &|_field, _value| false,
//! };
//! assert_eq!(authorizer.decide(&asks), Decision::Allow(Grant::NodeGraph));
//! authorizer.delete(Source::Pods, "ns", "p");
//! let reason = "no relationship found between node 'n1' and this object";
//! assert!(matches!(authorizer.decide(&asks), Decision::NoOpinion(denial) if denial.reason == reason));
//! # Ok::<(), watershed_authorizer::FactsError>(())
//! ```
//!
//! Revocation: every change returns whom it may have cost a right ([`Revoked`]), and
//! [`Authorizer::generation`] is another number for a user who may have lost one.

mod attributes;
mod decision;
mod facts;
mod graph;
mod node;
mod rbac;

pub use attributes::{Attributes, User};
pub use decision::{Decision, Denial, Grant};
pub use facts::{
    BindingFacts, Facts, FactsError, NodeFacts, PersistentVolumeFacts, PodFacts, PolicyRule,
    Reference, Referenced, RoleFacts, Source, Subject,
};
use graph::{Graph, Kind};
pub use graph::{GraphSize, Revoked};
pub use node::{Features, Refusal, identity};
use rbac::Rbac;
pub use rbac::RbacSize;

/// Its members may do everything, whatever else is configured.
const MASTERS: &str = "system:masters";

/// Decides about requests. Shared by reference; feeding and asking take turns of about a
/// microsecond.
#[derive(Debug, Default)]
pub struct Authorizer {
    features: Features,
    graph: Graph,
    rbac: Rbac,
}

/// Another one whenever a user may have lost a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    node: u64,
    rbac: u64,
}

impl Authorizer {
    /// An authorizer that knows of nothing yet. It allows what depends on nothing.
    pub fn new(features: Features) -> Self {
        Self {
            features,
            ..Self::default()
        }
    }

    /// Takes in what one object says, in place of what was known of the object.
    pub fn upsert(&self, facts: Facts<'_>) -> Revoked {
        match facts {
            Facts::Pod(pod) => self.graph.upsert_pod(&pod),
            Facts::PersistentVolume(volume) => self.graph.upsert_volume(&volume),
            Facts::VolumeAttachment(facts) => {
                self.graph.upsert_bound(Kind::VolumeAttachment, &facts)
            }
            Facts::ResourceSlice(facts) => self.graph.upsert_bound(Kind::ResourceSlice, &facts),
            Facts::PodCertificateRequest(facts) => {
                self.graph.upsert_bound(Kind::PodCertificateRequest, &facts)
            }
            Facts::Role(role) | Facts::ClusterRole(role) => of_users(self.rbac.upsert_role(role)),
            Facts::RoleBinding(binding) | Facts::ClusterRoleBinding(binding) => {
                of_users(self.rbac.upsert_binding(binding))
            }
        }
    }

    /// Forgets an object. It need not be known; the namespace of a cluster-scoped one is empty.
    pub fn delete(&self, source: Source, namespace: &str, name: &str) -> Revoked {
        match target(source) {
            Target::Graph(kind) => self.graph.delete(kind, namespace, name),
            Target::Roles { .. } => of_users(self.rbac.delete_role(namespace, name)),
            Target::Bindings { .. } => of_users(self.rbac.delete_binding(namespace, name)),
        }
    }

    /// Forgets all objects of a source, as if each was deleted: for when nobody watches it any
    /// more, so that what is deleted unseen gives nobody anything.
    pub fn clear(&self, source: Source) -> Revoked {
        match target(source) {
            Target::Graph(kind) => self.graph.clear(kind),
            Target::Roles { cluster_wide } => of_users(self.rbac.clear_roles(cluster_wide)),
            Target::Bindings { cluster_wide } => of_users(self.rbac.clear_bindings(cluster_wide)),
        }
    }

    /// Decides about a request: the first of `system:masters`, Node and RBAC that allows it does.
    pub fn decide(&self, asks: &Attributes<'_>) -> Decision<Denial> {
        if asks.user.in_group(MASTERS) {
            return Decision::Allow(Grant::Masters);
        }
        let refusal = match self.decide_as_node(asks) {
            Decision::Allow(grant) => return Decision::Allow(grant),
            Decision::NoOpinion(refusal) => refusal,
        };
        match self.rbac.decide(asks) {
            Decision::Allow(grant) => Decision::Allow(grant),
            Decision::NoOpinion(reason) => Decision::NoOpinion(Denial::new(asks, refusal, reason)),
        }
    }

    /// What the Node authorizer alone says: for control planes where RBAC is not what follows it.
    pub fn decide_as_node<'a>(&self, asks: &Attributes<'a>) -> Decision<Refusal<'a>> {
        node::decide(&self.graph, self.features, asks)
    }

    /// Why RBAC allows a request, in the words of the apiserver's own reviews; `None` if it does
    /// not. For people: a decision does not need it.
    pub fn explain(&self, asks: &Attributes<'_>) -> Option<String> {
        self.rbac.explain(asks)
    }

    /// What to compare with later, in order to know whether a decision has to be made again.
    pub fn generation(&self, user: &User<'_>) -> Generation {
        Generation {
            node: identity(user).map_or(0, |node| self.graph.generation(node)),
            rbac: self.rbac.generation(),
        }
    }

    /// How large the graph is.
    pub fn graph_size(&self) -> GraphSize {
        self.graph.size()
    }

    /// How much RBAC holds.
    pub fn rbac_size(&self) -> RbacSize {
        self.rbac.size()
    }
}

/// Who keeps what a source says.
enum Target {
    Graph(Kind),
    Roles { cluster_wide: bool },
    Bindings { cluster_wide: bool },
}

const fn target(source: Source) -> Target {
    let cluster_wide = !source.is_namespaced();
    match source {
        Source::Pods => Target::Graph(Kind::Pod),
        Source::PersistentVolumes => Target::Graph(Kind::PersistentVolume),
        Source::VolumeAttachments => Target::Graph(Kind::VolumeAttachment),
        Source::ResourceSlices => Target::Graph(Kind::ResourceSlice),
        Source::PodCertificateRequests => Target::Graph(Kind::PodCertificateRequest),
        Source::Roles | Source::ClusterRoles => Target::Roles { cluster_wide },
        Source::RoleBindings | Source::ClusterRoleBindings => Target::Bindings { cluster_wide },
    }
}

const fn of_users(narrowed: bool) -> Revoked {
    if narrowed {
        Revoked::AnyUser
    } else {
        Revoked::Nothing
    }
}
