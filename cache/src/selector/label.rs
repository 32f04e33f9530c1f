//! Label selectors.
//!
//! Owns the grammar of `labels/selector.go` (1.36), token by token, because its error texts say
//! where parsing stopped.

use std::fmt;

use super::{MAX_SELECTOR_BYTES, SelectorError};
use crate::object::Object;

mod parse;

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
    /// Sorted, distinct; empty for `Exists` and `DoesNotExist`, one decimal `i64` for the
    /// comparisons.
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
    /// The exact text of the apiserver's 400, or [`SelectorError::TooLarge`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError::TooLarge);
        }
        let mut requirements = parse::requirements(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements: requirements.into(),
        })
    }

    /// Whether every requirement holds.
    pub fn matches(&self, object: &Object) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.admits(object.label(&requirement.key)))
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

impl LabelRequirement {
    /// Whether a label with this value, or without one, meets the requirement.
    fn admits(&self, label: Option<&str>) -> bool {
        let listed = |label: &str| {
            self.values
                .binary_search_by(|value| (**value).cmp(label))
                .is_ok()
        };
        match self.operator {
            LabelOperator::In => label.is_some_and(listed),
            LabelOperator::NotIn => !label.is_some_and(listed),
            LabelOperator::Exists => label.is_some(),
            LabelOperator::DoesNotExist => label.is_none(),
            LabelOperator::GreaterThan => {
                self.compare(label).is_some_and(std::cmp::Ordering::is_gt)
            }
            LabelOperator::LessThan => self.compare(label).is_some_and(std::cmp::Ordering::is_lt),
        }
    }

    /// How an integer label compares with the integer asked for.
    fn compare(&self, label: Option<&str>) -> Option<std::cmp::Ordering> {
        let integer = |text: &str| text.parse::<i64>().ok();
        Some(integer(label?)?.cmp(&integer(self.values.first()?)?))
    }
}

/// The canonical text: it parses to an equal selector, and equal selectors have the same one.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            operator,
            values,
        } = self;
        match (operator, &**values) {
            (LabelOperator::Exists, _) => write!(f, "{key}"),
            (LabelOperator::DoesNotExist, _) => write!(f, "!{key}"),
            (LabelOperator::In, [value]) => write!(f, "{key}={value}"),
            (LabelOperator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (LabelOperator::In, _) => write!(f, "{key} in ({})", values.join(",")),
            (LabelOperator::NotIn, _) => write!(f, "{key} notin ({})", values.join(",")),
            (LabelOperator::GreaterThan, _) => write!(f, "{key}>{}", values.join(",")),
            (LabelOperator::LessThan, _) => write!(f, "{key}<{}", values.join(",")),
        }
    }
}

#[cfg(test)]
mod tests;
