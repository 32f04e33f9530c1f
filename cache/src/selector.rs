//! Label and field selectors.

mod field;
mod label;

pub use field::{
    BoundFieldSelector, FieldOperator, FieldRequirement, FieldSelector, UnsupportedLabel,
};
pub use label::{LabelOperator, LabelRequirement, LabelSelector};

/// A selector that does not parse. The text is the message of the apiserver's 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    message: String,
}
