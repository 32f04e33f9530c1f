//! The Node authorizer's rules: what a kubelet may, by resource and verb.
//!
//! Owns the rule table of `plugin/pkg/auth/authorizer/node/node_authorizer.go` (1.36), and the rules
//! for all nodes that stand behind it (`NodeRules` in `rbac/bootstrappolicy/policy.go`). It asks the
//! [`Graph`] about objects that are a node's only because of others. It refuses to judge contents:
//! what a kubelet may write into its own objects is for admission. Invariant: without the prefix and
//! the group that make a node it allows nothing.
//!
//! Rejected: the rules as data, to be interpreted. They are a dozen exceptions from a table that
//! would need a column for each.

mod refusal;

use crate::attributes::{Attributes, User};
use crate::decision::{Decision, Grant};
use crate::graph::{Graph, Kind};
pub use refusal::Refusal;

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
const LEASES: &str = "kube-node-lease";
/// The only field that any rule asks a selector for.
const NODE_NAME: &str = "spec.nodeName";

/// Which feature gates of the control plane are on, as far as they change decisions. The others
/// that matter, `AuthorizeNodeWithSelectors` above all, are taken to be on, as they cannot be
/// switched off since 1.34.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `KubeletServiceAccountTokenForCredentialProviders`: kubelets read the service accounts of
    /// their pods. On since 1.34.
    pub credential_provider_tokens: bool,
    /// `PodCertificateRequest`. Off in 1.36.
    pub pod_certificate_requests: bool,
    /// `ClusterTrustBundle`. Off in 1.36.
    pub cluster_trust_bundles: bool,
}

impl Default for Features {
    /// The defaults of 1.36.
    fn default() -> Self {
        Self {
            credential_provider_tokens: true,
            pod_certificate_requests: false,
            cluster_trust_bundles: false,
        }
    }
}

/// The node a user is, if it is one (as `nodeidentifier/default.go`, 1.36). The name may be empty,
/// which is nobody's.
pub fn identity<'a>(user: &User<'a>) -> Option<&'a str> {
    let node = user.name.strip_prefix(PREFIX)?;
    user.in_group(GROUP).then_some(node)
}

type Answer<'a> = Decision<Refusal<'a>>;

const ALLOW: Answer<'static> = Decision::Allow(Grant::NodeRule);
const SILENT: Answer<'static> = Decision::NoOpinion(Refusal::Silent);

const fn no(text: &'static str) -> Answer<'static> {
    Decision::NoOpinion(Refusal::Text(text))
}

/// What the rules and the graph say about a request.
pub(crate) fn decide<'a>(
    graph: &Graph,
    features: Features,
    attributes: &Attributes<'a>,
) -> Answer<'a> {
    let Some(node) = identity(&attributes.user) else {
        return SILENT;
    };
    if node.is_empty() {
        return Decision::NoOpinion(Refusal::UnknownNode);
    }
    let asker = Node {
        graph,
        features,
        name: node,
        asks: *attributes,
    };
    asker.decide()
}

/// A node that asks for something.
struct Node<'g, 'a> {
    graph: &'g Graph,
    features: Features,
    name: &'a str,
    asks: Attributes<'a>,
}

impl<'a> Node<'_, 'a> {
    fn decide(&self) -> Answer<'a> {
        if !self.asks.is_resource {
            return SILENT;
        }
        match (self.asks.group, self.asks.resource) {
            ("", "secrets") => self.read_namespaced(Kind::Secret),
            ("", "configmaps") => self.read_namespaced(Kind::ConfigMap),
            ("", "persistentvolumeclaims") if self.asks.subresource == "status" => {
                self.update_status(Kind::PersistentVolumeClaim)
            }
            ("", "persistentvolumeclaims") => self.read_one(Kind::PersistentVolumeClaim),
            ("", "persistentvolumes") => self.read_one(Kind::PersistentVolume),
            ("resource.k8s.io", "resourceclaims") => self.read_one(Kind::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => self.read_one(Kind::VolumeAttachment),
            ("", "serviceaccounts") => self.service_account(),
            ("coordination.k8s.io", "leases") => self.lease(),
            ("storage.k8s.io", "csinodes") => self.csi_node(),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(),
            ("", "nodes") => self.node(),
            ("", "pods") => self.pod(),
            ("certificates.k8s.io", "podcertificaterequests") => self.pod_certificate_request(),
            _other if self.every_node_may() => ALLOW,
            _other => SILENT,
        }
    }

    /// Secrets and config maps: one by one, watches included.
    fn read_namespaced(&self, kind: Kind) -> Answer<'a> {
        if !matches!(self.asks.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !self.asks.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if self.asks.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(kind)
    }

    fn read_one(&self, kind: Kind) -> Answer<'a> {
        if self.asks.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !self.asks.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(kind)
    }

    /// The text promises a `get` that there is not; it is the apiserver's.
    fn update_status(&self, kind: Kind) -> Answer<'a> {
        if !matches!(self.asks.verb, "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(kind)
    }

    fn service_account(&self) -> Answer<'a> {
        if self.asks.verb == "get" && self.asks.subresource.is_empty() {
            let features = self.features;
            if !(features.credential_provider_tokens || features.pod_certificate_requests) {
                return no("not allowed to get service accounts");
            }
            return self.read_namespaced(Kind::ServiceAccount);
        }
        if self.asks.verb != "create" || self.asks.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if self.asks.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(Kind::ServiceAccount)
    }

    /// Subresources are not looked at, by the apiserver neither.
    fn lease(&self) -> Answer<'a> {
        if !self.reads_or_writes_one() {
            return no("can only get, create, update, patch, or delete a node lease");
        }
        if self.asks.namespace != LEASES {
            return no(r#"can only access leases in the "kube-node-lease" system namespace"#);
        }
        if self.asks.verb != "create" && self.asks.name != self.name {
            return no("can only access node lease with the same name as the requesting node");
        }
        ALLOW
    }

    fn csi_node(&self) -> Answer<'a> {
        if !self.reads_or_writes_one() {
            return no("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.asks.subresource.is_empty() {
            return no("cannot authorize CSINode subresources");
        }
        if self.asks.verb != "create" && self.asks.name != self.name {
            return no("can only access CSINode with the same name as the requesting node");
        }
        ALLOW
    }

    fn resource_slice(&self) -> Answer<'a> {
        if !self.asks.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match self.asks.verb {
            "create" => ALLOW,
            "get" | "update" | "patch" | "delete" => self.related(Kind::ResourceSlice),
            "watch" | "list" | "deletecollection" if self.selects_itself() => ALLOW,
            "watch" | "list" | "deletecollection" => no(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _other => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, \
                 create, update, patch, delete, deletecollection",
            ),
        }
    }

    /// The name is compared rather than looked up, so that a node can look for itself before it
    /// exists. Which node it writes is for admission.
    fn node(&self) -> Answer<'a> {
        match (self.asks.subresource, self.asks.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => ALLOW,
            ("", "get" | "list" | "watch") if self.asks.name == self.name => ALLOW,
            ("", "get" | "list" | "watch") => {
                let (node, other) = (self.name, self.asks.name);
                Decision::NoOpinion(if other.is_empty() {
                    Refusal::AllNodes { node }
                } else {
                    Refusal::OtherNode { node, other }
                })
            }
            _other => SILENT,
        }
    }

    /// Which pod it writes is for admission.
    fn pod(&self) -> Answer<'a> {
        match (self.asks.subresource, self.asks.verb) {
            ("", "get") => self.related(Kind::Pod),
            ("", "list" | "watch") if self.selects_itself() => ALLOW,
            ("", "list" | "watch") if !self.asks.name.is_empty() => self.related(Kind::Pod),
            ("", "list" | "watch") => {
                no("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                ALLOW
            }
            _other => SILENT,
        }
    }

    fn pod_certificate_request(&self) -> Answer<'a> {
        if !self.features.pod_certificate_requests {
            return SILENT;
        }
        if !self.asks.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match self.asks.verb {
            "create" => ALLOW,
            "get" => self.related(Kind::PodCertificateRequest),
            "list" | "watch" if self.selects_itself() => ALLOW,
            "list" | "watch" => {
                no("can only list/watch podcertificaterequests with nodeName field selector")
            }
            verb => Decision::NoOpinion(Refusal::CertificateRequestVerb { verb }),
        }
    }

    /// What all nodes may with what is not divided among them.
    fn every_node_may(&self) -> bool {
        let reads = || matches!(self.asks.verb, "get" | "list" | "watch");
        if !self.asks.subresource.is_empty() {
            return false;
        }
        match (self.asks.group, self.asks.resource) {
            ("", "services")
            | ("storage.k8s.io", "csidrivers")
            | ("node.k8s.io", "runtimeclasses") => reads(),
            ("", "endpoints") => self.asks.verb == "get",
            ("certificates.k8s.io", "certificatesigningrequests") => {
                reads() || self.asks.verb == "create"
            }
            ("certificates.k8s.io", "clustertrustbundles") => {
                self.features.cluster_trust_bundles && reads()
            }
            ("" | "events.k8s.io", "events") => {
                matches!(self.asks.verb, "create" | "update" | "patch")
            }
            ("authentication.k8s.io", "tokenreviews")
            | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
                self.asks.verb == "create"
            }
            _other => false,
        }
    }

    fn reads_or_writes_one(&self) -> bool {
        matches!(
            self.asks.verb,
            "get" | "create" | "update" | "patch" | "delete"
        )
    }

    fn selects_itself(&self) -> bool {
        (self.asks.selects)(NODE_NAME, self.name)
    }

    /// Whether the object has to do with the node.
    fn related(&self, kind: Kind) -> Answer<'a> {
        if self.asks.name.is_empty() {
            return no("No Object name found");
        }
        if self
            .graph
            .reaches(self.name, kind, self.asks.namespace, self.asks.name)
        {
            return Decision::Allow(Grant::NodeGraph);
        }
        Decision::NoOpinion(Refusal::Unrelated {
            node: self.name,
            sources: kind.sources(),
        })
    }
}
