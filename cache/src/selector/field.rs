//! Field selectors.

use std::fmt;

use super::SelectorError;
use crate::fields::FieldSet;
use crate::object::Object;

/// A parsed field selector; the default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Box<[FieldRequirement]>,
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// The field label.
    pub key: Box<str>,
    /// How it is compared.
    pub operator: FieldOperator,
    /// The value compared with.
    pub value: Box<str>,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldOperator {
    /// `=` and `==`.
    Equals,
    /// `!=`.
    NotEquals,
}

/// A label the resource does not accept. Answer 400 with [`FieldSet::unsupported_text`] when the set is complete, forward
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field label {label:?} is not selectable")]
pub struct UnsupportedLabel {
    /// The first such label, in sorted order of the terms.
    pub label: Box<str>,
}

impl FieldSelector {
    /// Parses the apiserver's grammar.
    ///
    /// # Errors
    /// The exact text of the apiserver's 400.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        todo!()
    }

    /// The requirements, in the apiserver's order.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value of the first `=` term for this label.
    pub fn required_value(&self, label: &str) -> Option<&str> {
        let _ = label;
        todo!()
    }

    /// Resolves the labels against what the resource offers.
    ///
    /// # Errors
    /// The first label the set does not have.
    pub fn bind(&self, fields: &FieldSet) -> Result<BoundFieldSelector, UnsupportedLabel> {
        let _ = fields;
        todo!()
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}

/// A field selector resolved for one resource; the default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BoundFieldSelector {}

impl BoundFieldSelector {
    /// Whether every requirement holds.
    pub fn matches(&self, object: &Object) -> bool {
        let _ = object;
        todo!()
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// The value the trigger field must have, if the selector pins it with `=`.
    pub fn trigger_value(&self) -> Option<&str> {
        todo!()
    }
}
