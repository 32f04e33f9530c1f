//! The parsers row by row against tables of Go's answers.
//!
//! Owns the comparison only. `tables/README.md` says where the answers come from. A row is
//! `[input, answer]`; text that is not UTF-8 stands as `{"bytes": base64}`. Where the proxy leaves a
//! judgement to the apiserver the test says so, and demands that it does.

mod negotiation;
mod scalars;
mod selectors;
mod targets;
mod tokens;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Text of Go, which need not be UTF-8.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(untagged)]
enum Text {
    Utf8(String),
    Bytes { bytes: String },
}

impl Text {
    fn utf8(&self) -> Option<&str> {
        match self {
            Self::Utf8(text) => Some(text),
            Self::Bytes { .. } => None,
        }
    }

    /// As it looks with every bad byte replaced.
    fn lossy(&self) -> String {
        match self {
            Self::Utf8(text) => text.clone(),
            Self::Bytes { bytes } => {
                String::from_utf8_lossy(&STANDARD.decode(bytes).expect("base64")).into_owned()
            }
        }
    }
}

/// An answer, or the text of an error.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: Text },
    Value(T),
}

impl<T> Answer<T> {
    fn result(self) -> Result<T, String> {
        match self {
            Self::Error { error } => Err(error.lossy()),
            Self::Value(value) => Ok(value),
        }
    }
}

fn rows<A: for<'de> Deserialize<'de>>(table: &str) -> Vec<(Text, A)> {
    serde_json::from_str(table).expect("a table is rows of input and answer")
}

/// Fails with the first differences of a whole table, so that one run shows them together.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn check<T: std::fmt::Debug + PartialEq>(
        &mut self,
        input: &dyn std::fmt::Debug,
        who: &str,
        got: &T,
        go: &T,
    ) {
        if got != go {
            self.0.push(format!(
                "{who} {input:?}\n      got {got:?}\n  want go {go:?}"
            ));
        }
    }
}

impl Drop for Differences {
    fn drop(&mut self) {
        if !self.0.is_empty() && !std::thread::panicking() {
            let shown = self
                .0
                .iter()
                .take(20)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n");
            panic!("{} differences:\n{shown}", self.0.len());
        }
    }
}
