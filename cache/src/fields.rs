//! The selectable fields of a resource.

use std::sync::Arc;

/// The field labels a resource accepts in selectors, and where their values come from.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldSet {}

impl FieldSet {
    /// The labels of a resource that ships with Kubernetes, or `None` when this version of the cache does not know it.
    pub fn builtin(group: &str, version: &str, resource: &str) -> Option<Arc<Self>> {
        let _ = (group, version, resource);
        todo!()
    }

    /// The labels of a custom resource: `metadata.name`, `metadata.namespace` if namespaced, and the `jsonPath`s of the
    /// version's `selectableFields` (with or without their leading dot).
    pub fn custom<'a>(namespaced: bool, paths: impl IntoIterator<Item = &'a str>) -> Arc<Self> {
        let _ = (namespaced, paths.into_iter().count());
        todo!()
    }

    /// For a resource whose labels are not known: `metadata.name` and `metadata.namespace` can be evaluated, everything
    /// else must be forwarded, since [`Self::is_complete`] is false.
    pub fn unknown() -> Arc<Self> {
        todo!()
    }

    /// Whether a label this set does not have is certainly refused by the apiserver.
    pub fn is_complete(&self) -> bool {
        todo!()
    }

    /// Position of a label's value in [`Object::field`](crate::object::Object::field), aliases included.
    pub fn index_of(&self, label: &str) -> Option<usize> {
        let _ = label;
        todo!()
    }

    /// The field by which events are indexed: `spec.nodeName` of pods and resourceslices.
    pub fn trigger(&self) -> Option<usize> {
        todo!()
    }

    /// The message of the apiserver's 400 for a label that is not in this set; only meaningful when it
    /// [is complete](Self::is_complete).
    pub fn unsupported_text(&self, label: &str) -> String {
        let _ = label;
        todo!()
    }
}
