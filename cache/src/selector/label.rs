//! Label selectors.

use std::fmt;

use super::SelectorError;
use crate::object::Object;

/// A parsed label selector; the default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Box<[LabelRequirement]>,
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelRequirement {
    /// The label.
    pub key: Box<str>,
    /// How it is compared.
    pub operator: LabelOperator,
    /// Sorted, distinct; empty for `Exists` and `DoesNotExist`, one integer for the comparisons.
    pub values: Box<[Box<str>]>,
}

/// How a label is compared. `=` and `==` are `In` with one value, `!=` is `NotIn` with one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelOperator {
    /// Present and one of the values.
    In,
    /// Absent, or none of the values.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// Present and a greater integer.
    GreaterThan,
    /// Present and a smaller integer.
    LessThan,
}

impl LabelSelector {
    /// Parses the apiserver's grammar.
    ///
    /// # Errors
    /// The exact text of the apiserver's 400.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        todo!()
    }

    /// Whether every requirement holds.
    pub fn matches(&self, object: &Object) -> bool {
        let _ = object;
        todo!()
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}
