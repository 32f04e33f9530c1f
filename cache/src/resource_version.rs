//! Resource versions: the numbers a client resumes from.
//!
//! Owns parsing and comparing them; nothing else in the crate does arithmetic on a resource version. It refuses to mint
//! one: a `ResourceVersion` always came from the apiserver. Versions of different resources must not be compared.

use std::fmt;

/// A resource version of one resource: a decimal `u64`, comparable only within that resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(u64);

impl ResourceVersion {
    /// Wraps a number the apiserver sent.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Parses decimal digits as Go `strconv.ParseUint(text, 10, 64)`: leading zeros are fine, signs, spaces and the empty
    /// string are not. What `""` and `"0"` mean depends on the request, so callers look at those first.
    ///
    /// # Errors
    /// The text a kube-apiserver 1.36 answers with for such a `resourceVersion` parameter.
    pub fn parse_strict(text: &str) -> Result<Self, InvalidResourceVersion> {
        let _ = text;
        todo!()
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A `resourceVersion` that is not a decimal `u64`. Its text is the apiserver's for GET and WATCH; LIST puts
/// `invalid resource version: ` in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: {problem}")]
pub struct InvalidResourceVersion {
    quoted: String,
    problem: &'static str,
}
