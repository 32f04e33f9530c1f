//! Resource versions: the numbers a client resumes from.
//!
//! Owns parsing and comparing them; nothing else in the crate does arithmetic on a resource
//! version. It refuses to mint one: a `ResourceVersion` always came from the apiserver. Versions of
//! different resources must not be compared.

use std::fmt;

use watershed_quote::quote;

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

    /// Parses decimal digits as Go `strconv.ParseUint(text, 10, 64)`: leading zeros are fine;
    /// signs, spaces and the empty string are not. What `""` and `"0"` mean depends on the request,
    /// so callers look at those first.
    ///
    /// # Errors
    /// The text a kube-apiserver 1.36 answers with for such a `resourceVersion` parameter.
    pub fn parse_strict(text: &str) -> Result<Self, InvalidResourceVersion> {
        Self::digits(text.as_bytes())
            .map(Self)
            .map_err(|problem| InvalidResourceVersion {
                quoted: quote(text),
                problem,
            })
    }

    fn digits(text: &[u8]) -> Result<u64, &'static str> {
        if text.is_empty() {
            return Err("invalid syntax");
        }
        text.iter().try_fold(0_u64, |number, &byte| {
            if !byte.is_ascii_digit() {
                return Err("invalid syntax");
            }
            number
                .checked_mul(10)
                .and_then(|number| number.checked_add(u64::from(byte - b'0')))
                .ok_or("value out of range")
        })
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A `resourceVersion` that is not a decimal `u64`. Its text is the apiserver's for GET and WATCH;
/// LIST puts `invalid resource version: ` in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: {problem}")]
pub struct InvalidResourceVersion {
    quoted: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::ResourceVersion;

    #[test]
    fn accepts_what_go_accepts() {
        for (text, number) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(
                ResourceVersion::parse_strict(text),
                Ok(ResourceVersion::new(number))
            );
        }
    }

    #[test]
    fn refuses_with_the_text_of_go() {
        let table = [
            ("abc", "invalid syntax"),
            ("", "invalid syntax"),
            ("-1", "invalid syntax"),
            ("+7", "invalid syntax"),
            (" 7", "invalid syntax"),
            ("1e3", "invalid syntax"),
            ("0x1", "invalid syntax"),
            ("1_0", "invalid syntax"),
            ("18446744073709551616", "value out of range"),
            // Go stops at the first digit that overflows and never sees the letter.
            ("99999999999999999999x", "value out of range"),
        ];
        for (text, problem) in table {
            let error = ResourceVersion::parse_strict(text).unwrap_err().to_string();
            let expected = format!(
                "resourceVersion: Invalid value: \"{text}\": \
                 strconv.ParseUint: parsing \"{text}\": {problem}"
            );
            assert_eq!(error, expected);
        }
    }
}
