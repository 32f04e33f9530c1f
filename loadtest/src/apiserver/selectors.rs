//! Label and field selectors with Go's grammar, texts and semantics.
//!
//! Owns parsing, canonical order and matching against objects as JSON values, and the labels each
//! resource accepts. Refuses to look at requests. Invariant: what parses here parses in
//! kube-apiserver 1.36 to the same terms, and what fails here fails there with the same text.

use serde_json::Value;

use super::resources::Resource;

mod fields;
mod labels;

pub use fields::{FieldRequirement, FieldSelector, field_value};
pub use labels::{LabelOperator, LabelRequirement, LabelSelector};

/// Text of a syntax error; the body of a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// What a list or watch selects: scope, labels, fields.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Namespace of the path; empty selects all.
    pub namespace: String,
    /// Label selector.
    pub labels: LabelSelector,
    /// Field selector, already converted to the labels of the stored object.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether an object of the resource passes.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        let metadata = &object["metadata"];
        if !self.namespace.is_empty()
            && metadata["namespace"].as_str().unwrap_or("") != self.namespace
        {
            return false;
        }
        self.fields
            .matches(|label| field_value(resource, object, label))
            && self.labels.matches(&metadata["labels"])
    }

    /// Whether neither labels nor fields narrow the scope.
    pub fn is_unselective(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}
