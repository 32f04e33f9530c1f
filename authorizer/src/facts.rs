//! What an object says that decisions depend on.
//!
//! Owns the reading of it out of the bytes of one object, as an apiserver sent them: JSON, or
//! protobuf with its `k8s\0` envelope. Only what is needed is decoded, and borrowed from the bytes
//! where it stands there as it is. Refuses bytes that are not such an object; what they would have
//! said is then unknown, and whoever feeds the authorizer may not take its "no" for an answer until
//! the object was read or is gone. Refuses to judge: an object is believed to be valid, as one that
//! was stored is. Which kind it is, the caller says ([`Source`]); it is not looked for in the bytes.

use std::borrow::Cow;

mod bound;
mod json;
mod pod;
mod policy;
mod protobuf;
mod schema;
mod volume;

/// The resources that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// core/pods
    Pods,
    /// core/persistentvolumes
    PersistentVolumes,
    /// storage.k8s.io/volumeattachments
    VolumeAttachments,
    /// resource.k8s.io/resourceslices
    ResourceSlices,
    /// certificates.k8s.io/podcertificaterequests
    PodCertificateRequests,
    /// rbac.authorization.k8s.io/roles
    Roles,
    /// rbac.authorization.k8s.io/clusterroles
    ClusterRoles,
    /// rbac.authorization.k8s.io/rolebindings
    RoleBindings,
    /// rbac.authorization.k8s.io/clusterrolebindings
    ClusterRoleBindings,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Pods,
        Self::PersistentVolumes,
        Self::VolumeAttachments,
        Self::ResourceSlices,
        Self::PodCertificateRequests,
        Self::Roles,
        Self::ClusterRoles,
        Self::RoleBindings,
        Self::ClusterRoleBindings,
    ];

    /// API group and resource.
    pub const fn resource(self) -> (&'static str, &'static str) {
        match self {
            Self::Pods => ("", "pods"),
            Self::PersistentVolumes => ("", "persistentvolumes"),
            Self::VolumeAttachments => ("storage.k8s.io", "volumeattachments"),
            Self::ResourceSlices => ("resource.k8s.io", "resourceslices"),
            Self::PodCertificateRequests => ("certificates.k8s.io", "podcertificaterequests"),
            Self::Roles => ("rbac.authorization.k8s.io", "roles"),
            Self::ClusterRoles => ("rbac.authorization.k8s.io", "clusterroles"),
            Self::RoleBindings => ("rbac.authorization.k8s.io", "rolebindings"),
            Self::ClusterRoleBindings => ("rbac.authorization.k8s.io", "clusterrolebindings"),
        }
    }

    /// Whether its objects have a namespace.
    pub const fn is_namespaced(self) -> bool {
        match self {
            Self::Pods | Self::PodCertificateRequests | Self::Roles | Self::RoleBindings => true,
            Self::PersistentVolumes
            | Self::VolumeAttachments
            | Self::ResourceSlices
            | Self::ClusterRoles
            | Self::ClusterRoleBindings => false,
        }
    }

    /// The source with this API group and resource.
    pub fn of(group: &str, resource: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|source| source.resource() == (group, resource))
    }
}

/// What one object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts<'a> {
    /// Of a pod.
    Pod(PodFacts<'a>),
    /// Of a persistent volume.
    PersistentVolume(PersistentVolumeFacts<'a>),
    /// Of a volume attachment.
    VolumeAttachment(NodeFacts<'a>),
    /// Of a resource slice.
    ResourceSlice(NodeFacts<'a>),
    /// Of a pod certificate request.
    PodCertificateRequest(NodeFacts<'a>),
    /// Of a role.
    Role(RoleFacts),
    /// Of a cluster role. Of an aggregated one the rules are those that the controller wrote into
    /// it; selectors are not followed, by the apiserver neither.
    ClusterRole(RoleFacts),
    /// Of a role binding.
    RoleBinding(BindingFacts),
    /// Of a cluster role binding.
    ClusterRoleBinding(BindingFacts),
}

impl<'a> Facts<'a> {
    /// Reads what the bytes of one object say: JSON, or protobuf with its envelope. Any API version
    /// of the resource that kube-apiserver 1.33 to 1.36 serves will do.
    ///
    /// # Errors
    /// Malformed bytes, or an object without a name, or without the namespace one of its kind has.
    pub fn read(source: Source, object: &'a [u8]) -> Result<Self, FactsError> {
        let facts = match source {
            Source::Pods => Self::Pod(pod::read(object)?),
            Source::PersistentVolumes => Self::PersistentVolume(volume::read(object)?),
            Source::VolumeAttachments => {
                Self::VolumeAttachment(bound::read(object, &bound::VOLUME_ATTACHMENT)?)
            }
            Source::ResourceSlices => {
                Self::ResourceSlice(bound::read(object, &bound::RESOURCE_SLICE)?)
            }
            Source::PodCertificateRequests => {
                Self::PodCertificateRequest(bound::read(object, &bound::POD_CERTIFICATE_REQUEST)?)
            }
            Source::Roles => Self::Role(policy::role(object, &policy::ROLE)?),
            Source::ClusterRoles => Self::ClusterRole(policy::role(object, &policy::CLUSTER_ROLE)?),
            Source::RoleBindings => {
                Self::RoleBinding(policy::binding(object, &policy::ROLE_BINDING)?)
            }
            Source::ClusterRoleBindings => {
                Self::ClusterRoleBinding(policy::binding(object, &policy::CLUSTER_ROLE_BINDING)?)
            }
        };
        let (namespace, name) = facts.key();
        if name.is_empty() || (namespace.is_empty() && source.is_namespaced()) {
            return Err(FactsError::Nameless);
        }
        Ok(facts)
    }

    /// Namespace and name of the object.
    fn key(&self) -> (&str, &str) {
        match self {
            Self::Pod(pod) => (&pod.namespace, &pod.name),
            Self::PersistentVolume(volume) => ("", &volume.name),
            Self::VolumeAttachment(facts)
            | Self::ResourceSlice(facts)
            | Self::PodCertificateRequest(facts) => (&facts.namespace, &facts.name),
            Self::Role(role) | Self::ClusterRole(role) => (&role.namespace, &role.name),
            Self::RoleBinding(binding) | Self::ClusterRoleBinding(binding) => {
                (&binding.namespace, &binding.name)
            }
        }
    }
}

/// Which node a pod is bound to, and what it lets that node read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts<'a> {
    /// `metadata.namespace`
    pub namespace: Cow<'a, str>,
    /// `metadata.name`
    pub name: Cow<'a, str>,
    /// `spec.nodeName`; empty before it is bound.
    pub node: Cow<'a, str>,
    /// Objects in the pod's namespace, as often as they are mentioned. None for a mirror pod, so
    /// that a node cannot give itself rights.
    pub references: Vec<Reference<'a>>,
}

/// A mention of another object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference<'a> {
    /// What is mentioned.
    pub kind: Referenced,
    /// Its name, never empty.
    pub name: Cow<'a, str>,
}

/// What a pod can mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Referenced {
    /// By volumes, `env` and `envFrom`.
    ConfigMap,
    /// By volumes; ephemeral ones by the name that is made for them.
    PersistentVolumeClaim,
    /// By name, or by the status of a claim made from a template.
    ResourceClaim,
    /// By volumes, `env`, `envFrom` and `imagePullSecrets`.
    Secret,
    /// `spec.serviceAccountName`
    ServiceAccount,
}

/// Which claim a persistent volume is for, and what a node needs to mount it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistentVolumeFacts<'a> {
    /// `metadata.name`
    pub name: Cow<'a, str>,
    /// `spec.claimRef`: namespace and name.
    pub claim: Option<(Cow<'a, str>, Cow<'a, str>)>,
    /// Namespace and name of the secrets a kubelet may see, as often as they are mentioned. None
    /// without a claim.
    pub secrets: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Which node an object belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts<'a> {
    /// `metadata.namespace`; empty where the resource has none.
    pub namespace: Cow<'a, str>,
    /// `metadata.name`
    pub name: Cow<'a, str>,
    /// `spec.nodeName`; may be empty.
    pub node: Cow<'a, str>,
}

/// The rules of a role or cluster role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleFacts {
    /// `metadata.namespace`; empty for a cluster role.
    pub namespace: Box<str>,
    /// `metadata.name`
    pub name: Box<str>,
    /// `rules`
    pub rules: Vec<PolicyRule>,
}

/// One rule of a role: what it says is allowed, everything else is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// `verbs`
    pub verbs: Vec<Box<str>>,
    /// `apiGroups`
    pub api_groups: Vec<Box<str>>,
    /// `resources`
    pub resources: Vec<Box<str>>,
    /// `resourceNames`
    pub resource_names: Vec<Box<str>>,
    /// `nonResourceURLs`
    pub non_resource_urls: Vec<Box<str>>,
}

/// Who a binding gives which role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingFacts {
    /// `metadata.namespace`; empty for a cluster role binding.
    pub namespace: Box<str>,
    /// `metadata.name`
    pub name: Box<str>,
    /// `roleRef.kind`. Its group is not read: validation leaves no choice, and the apiserver's
    /// evaluation does not look at it either.
    pub role_kind: Box<str>,
    /// `roleRef.name`
    pub role_name: Box<str>,
    /// `subjects`, in their order.
    pub subjects: Vec<Subject>,
}

/// Whom a binding is for. The group of a subject is not read, as that of a role is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// `kind`: User, Group or ServiceAccount.
    pub kind: Box<str>,
    /// `name`
    pub name: Box<str>,
    /// `namespace`, of a service account; empty means the binding's.
    pub namespace: Box<str>,
}

/// Why an object could not be read. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Not JSON.
    #[error("malformed JSON at line {line} column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON with a value of an unexpected type.
    #[error("JSON value of another type at line {line} column {column}")]
    Mistyped {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An object without a name, or without the namespace that one of its kind has.
    #[error("object without a name or namespace")]
    Nameless,
    /// Not protobuf, or another message.
    #[error("malformed protobuf: {0}")]
    Protobuf(&'static str),
}
