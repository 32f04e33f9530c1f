//! Label and field selectors: parse, match, and what an index can take from them.
//!
//! Owns the two grammars of the apiserver and the wording of its errors, which are sent to clients
//! as they are. It refuses selectors of unreasonable size, since matching one costs time for every
//! object and watcher; the caller forwards those. A parsed selector is immutable and cheap to
//! match: no allocation, no parsing of its own text again.

mod field;
mod label;
mod syntax;

pub use field::{
    BoundFieldSelector, FieldOperator, FieldRequirement, FieldSelector, UnsupportedLabel,
};
pub use label::{LabelOperator, LabelRequirement, LabelSelector};

/// Longest selector parsed, in bytes. A longer one is forwarded, as [`SelectorError::TooLarge`]
/// says.
pub const MAX_SELECTOR_BYTES: usize = 64 * 1024;

/// Most terms in a selector. One with more is forwarded, as [`SelectorError::TooLarge`] says.
pub const MAX_SELECTOR_TERMS: usize = 256;

/// Why a selector was not parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The apiserver answers 400 with exactly this message.
    #[error("{0}")]
    Invalid(String),
    /// Beyond [`MAX_SELECTOR_BYTES`] or [`MAX_SELECTOR_TERMS`]: nothing is known about it, to be
    /// forwarded.
    #[error("selector longer than {MAX_SELECTOR_BYTES} bytes or {MAX_SELECTOR_TERMS} terms")]
    TooLarge,
}
