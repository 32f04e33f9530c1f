//! What the cache must know of one resource, as discovery tells it.

use std::sync::Arc;

use crate::fields::FieldSet;

/// One served version of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Arc<str>,
    /// Version within the group, such as `v1`.
    pub version: Arc<str>,
    /// Plural lower-case name, such as `pods`.
    pub resource: Arc<str>,
    /// Kind of one object, such as `Pod`.
    pub kind: Arc<str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether it is served from a CustomResourceDefinition: sorted keys, list items that keep their kind and apiVersion.
    pub custom: bool,
    /// The field labels a selector may name.
    pub fields: Arc<FieldSet>,
}

impl Resource {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the cluster-wide collection, such as `/api/v1/pods` or `/apis/apps/v1/deployments`.
    pub fn list_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}/{}", self.version, self.resource)
        } else {
            format!("/apis/{}/{}/{}", self.group, self.version, self.resource)
        }
    }

    /// Kind of the collection: the object kind followed by `List`, as the apiserver names every built-in list.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }
}
