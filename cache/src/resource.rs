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
    /// Whether it is served from a CustomResourceDefinition: sorted keys, list items that keep
    /// their kind and apiVersion.
    pub custom: bool,
    /// The field labels a selector may name.
    pub fields: Arc<FieldSet>,
}

impl Resource {
    /// Pods as every apiserver serves them: what most examples, tests and benches cache.
    ///
    /// # Panics
    /// Never: pods are among the built-in field sets.
    pub fn pods() -> Self {
        Self {
            group: "".into(),
            version: "v1".into(),
            resource: "pods".into(),
            kind: "Pod".into(),
            namespaced: true,
            custom: false,
            fields: FieldSet::builtin("", "v1", "pods").expect("pods are built in"),
        }
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether `text` is [`Self::api_version`], which need not be put together to find out.
    pub(crate) fn is_api_version(&self, text: &str) -> bool {
        let version = match text.strip_prefix(&*self.group) {
            Some(rest) if !self.group.is_empty() => rest.strip_prefix('/'),
            rest => rest,
        };
        version == Some(&*self.version)
    }

    /// Path of the cluster-wide collection, such as `/api/v1/pods` or `/apis/apps/v1/deployments`.
    pub fn list_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}/{}", self.version, self.resource)
        } else {
            format!("/apis/{}/{}/{}", self.group, self.version, self.resource)
        }
    }

    /// Kind of the collection: the object kind followed by `List`, as the apiserver names every
    /// built-in list.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::Resource;
    use crate::fields::FieldSet;

    fn resource(group: &str) -> Resource {
        Resource {
            group: group.into(),
            version: "v1".into(),
            resource: "things".into(),
            kind: "Thing".into(),
            namespaced: true,
            custom: false,
            fields: FieldSet::unknown(),
        }
    }

    #[test]
    fn the_core_group_has_its_own_path_and_no_name() {
        let core = resource("");
        assert_eq!(
            (&*core.api_version(), &*core.list_path()),
            ("v1", "/api/v1/things")
        );
        let apps = resource("apps");
        assert_eq!(
            (&*apps.api_version(), &*apps.list_path()),
            ("apps/v1", "/apis/apps/v1/things")
        );
        assert_eq!(apps.list_kind(), "ThingList");
    }

    #[test]
    fn only_its_own_api_version_is_recognised() {
        for (group, own) in [("", "v1"), ("apps", "apps/v1")] {
            for text in [
                "v1", "apps/v1", "/v1", "appsv1", "apps/", "apps", "", "v11", "apps/v1/",
            ] {
                assert_eq!(
                    resource(group).is_api_version(text),
                    text == own,
                    "{group} {text}"
                );
            }
        }
    }
}
