//! The first difference of a replay, with both sides where bytes differ.

use super::super::matcher::Mismatch;

/// What differed.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) why: String,
    pub(super) expected: String,
    pub(super) got: String,
    /// As in [`Mismatch`].
    pub(super) behind: Option<String>,
}

impl Difference {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            expected: String::new(),
            got: String::new(),
            behind: None,
        }
    }

    pub(super) fn of(error: &anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }

    pub(super) fn with(mismatch: Mismatch, expected: &[u8], got: &[u8]) -> Self {
        Self {
            why: mismatch.why,
            expected: printable(expected),
            got: printable(got),
            behind: mismatch.behind,
        }
    }

    pub(super) fn at(self, place: &str) -> Self {
        Self {
            why: format!("{place}: {}", self.why),
            ..self
        }
    }
}

impl From<Mismatch> for Difference {
    fn from(mismatch: Mismatch) -> Self {
        Self::new(mismatch.why)
    }
}

pub(super) fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}
