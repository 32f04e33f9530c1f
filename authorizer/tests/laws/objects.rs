//! Objects as the tests describe them: who mentions what, and where.

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) mirror: bool,
    pub(crate) mentions: Vec<(Place, String)>,
}

/// Where a pod can mention something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    ServiceAccount,
    ImagePullSecret,
    Env(Container, Target),
    EnvFrom(Container, Target),
    Volume(Target),
    Projected(Target),
    AzureFile,
    CephFs,
    Cinder,
    FlexVolume,
    Rbd,
    ScaleIo,
    Iscsi,
    StorageOs,
    Csi,
    PersistentVolumeClaim,
    /// A volume of this name.
    EphemeralClaim,
    ResourceClaim,
    /// A claim of this name from a template, and what its status says.
    FromTemplate(Made),
    ExtendedResourceClaim,
    /// The deprecated field, which is a copy.
    OldServiceAccount,
    /// A volume of a kind that mentions nothing.
    EmptyDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Init,
    Regular,
    Ephemeral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Secret,
    ConfigMap,
}

/// What came of a claim's template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    NotYet,
    NotNeeded,
    /// An object, of the claim's name with `-made` behind.
    Object,
}

use Container::{Ephemeral, Init, Regular};
use Target::{ConfigMap, Secret};

impl Place {
    pub(crate) const ALL: &'static [Self] = &[
        Self::ServiceAccount,
        Self::ImagePullSecret,
        Self::Env(Init, Secret),
        Self::Env(Init, ConfigMap),
        Self::Env(Regular, Secret),
        Self::Env(Regular, ConfigMap),
        Self::Env(Ephemeral, Secret),
        Self::Env(Ephemeral, ConfigMap),
        Self::EnvFrom(Init, Secret),
        Self::EnvFrom(Init, ConfigMap),
        Self::EnvFrom(Regular, Secret),
        Self::EnvFrom(Regular, ConfigMap),
        Self::EnvFrom(Ephemeral, Secret),
        Self::EnvFrom(Ephemeral, ConfigMap),
        Self::Volume(Secret),
        Self::Volume(ConfigMap),
        Self::Projected(Secret),
        Self::Projected(ConfigMap),
        Self::AzureFile,
        Self::CephFs,
        Self::Cinder,
        Self::FlexVolume,
        Self::Rbd,
        Self::ScaleIo,
        Self::Iscsi,
        Self::StorageOs,
        Self::Csi,
        Self::PersistentVolumeClaim,
        Self::EphemeralClaim,
        Self::ResourceClaim,
        Self::FromTemplate(Made::NotYet),
        Self::FromTemplate(Made::NotNeeded),
        Self::FromTemplate(Made::Object),
        Self::ExtendedResourceClaim,
        Self::OldServiceAccount,
        Self::EmptyDir,
    ];

    /// The resource that a mention here gives the node, and its name, in a pod of that name.
    pub(crate) fn gives(self, pod: &str, name: &str) -> Option<(&'static str, String)> {
        let resource = match self {
            Self::ServiceAccount => "serviceaccounts",
            Self::Env(_, ConfigMap)
            | Self::EnvFrom(_, ConfigMap)
            | Self::Volume(ConfigMap)
            | Self::Projected(ConfigMap) => "configmaps",
            Self::ImagePullSecret
            | Self::Env(_, Secret)
            | Self::EnvFrom(_, Secret)
            | Self::Volume(Secret)
            | Self::Projected(Secret)
            | Self::AzureFile
            | Self::CephFs
            | Self::Cinder
            | Self::FlexVolume
            | Self::Rbd
            | Self::ScaleIo
            | Self::Iscsi
            | Self::StorageOs
            | Self::Csi => "secrets",
            Self::PersistentVolumeClaim => "persistentvolumeclaims",
            Self::EphemeralClaim => {
                return Some(("persistentvolumeclaims", format!("{pod}-{name}")));
            }
            Self::ResourceClaim | Self::ExtendedResourceClaim => "resourceclaims",
            Self::FromTemplate(Made::Object) => {
                return Some(("resourceclaims", format!("{name}-made")));
            }
            Self::FromTemplate(Made::NotYet | Made::NotNeeded)
            | Self::OldServiceAccount
            | Self::EmptyDir => return None,
        };
        Some((resource, name.to_owned()))
    }

    /// Whether a pod can have only one of it.
    pub(crate) fn is_single(self) -> bool {
        matches!(
            self,
            Self::ServiceAccount | Self::OldServiceAccount | Self::ExtendedResourceClaim
        )
    }
}

/// A persistent volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Namespace and name.
    pub(crate) claim: Option<(String, String)>,
    /// Where it mentions a secret, its namespace if the reference has one, its name. A volume has
    /// one source: only the places of [`VolumePlace::Csi`] can be together.
    pub(crate) secrets: Vec<(VolumePlace, Option<String>, String)>,
}

/// Where a volume can mention a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumePlace {
    AzureFile,
    CephFs,
    Cinder,
    FlexVolume,
    Rbd,
    ScaleIo,
    Iscsi,
    StorageOs,
    Csi(CsiSecret),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CsiSecret {
    ControllerPublish,
    ControllerExpand,
    NodePublish,
    NodeStage,
    NodeExpand,
}

impl VolumePlace {
    pub(crate) const ALONE: &'static [Self] = &[
        Self::AzureFile,
        Self::CephFs,
        Self::Cinder,
        Self::FlexVolume,
        Self::Rbd,
        Self::ScaleIo,
        Self::Iscsi,
        Self::StorageOs,
    ];

    pub(crate) const CSI: &'static [Self] = &[
        Self::Csi(CsiSecret::ControllerPublish),
        Self::Csi(CsiSecret::ControllerExpand),
        Self::Csi(CsiSecret::NodePublish),
        Self::Csi(CsiSecret::NodeStage),
        Self::Csi(CsiSecret::NodeExpand),
    ];

    /// Whether a kubelet may see what is mentioned here.
    pub(crate) fn is_visible(self) -> bool {
        !matches!(
            self,
            Self::Csi(CsiSecret::ControllerPublish | CsiSecret::ControllerExpand)
        )
    }

    /// Whether a reference without a namespace means that of the claim.
    pub(crate) fn is_defaulted(self) -> bool {
        !matches!(self, Self::Cinder | Self::StorageOs | Self::Csi(_))
    }
}

/// An attachment, a slice or a certificate request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: String,
}

/// A role, or without a namespace a cluster role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) urls: Vec<String>,
}

/// A role binding, or without a namespace a cluster role binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Kind and name.
    pub(crate) role: (String, String),
    /// Kind, namespace and name.
    pub(crate) subjects: Vec<(String, String, String)>,
}
