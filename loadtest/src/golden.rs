//! Recordings of a real kube-apiserver, and their replay against a server under test.
//!
//! Owns the model of `golden/*/*.json` (see `golden/README.md`), the matcher that compares bytes
//! while letting resource versions, UIDs and times differ consistently, and the replay of one
//! scenario over HTTP/1.1 and TLS. The same replay runs against the embedded apiserver and through
//! a proxy in front of it.
//!
//! ```text
//!  recording ──► model ──► replay ──► client ──► the embedded apiserver,
//!                            │ ▲                   or a proxy in front of it
//!                            ▼ │ bound symbols
//!                  matcher (text) · message (protobuf)         suite: all of them, one verdict
//! ```
//!
//! Refuses: to interpret the bodies it compares; literal bytes must be equal.
//!
//! Invariant: within one replay a symbol stands for one live value, and resource versions keep the
//! order they were recorded in.

mod client;
mod embedded;
mod headers;
mod matcher;
mod message;
mod model;
mod replay;
mod stream;
mod suite;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

pub use self::embedded::Embedded;
pub use self::matcher::{Bindings, Mismatch};
pub use self::model::{
    Event, Exchange, Hole, Message, Response, Scenario, Step, Symbol, SymbolKind, WatchEvents,
};
pub use self::replay::replay;
pub use self::suite::{Verdict, judge};
use crate::apiserver::Apiserver;

/// The recordings in this package, sorted by id.
///
/// # Errors
/// When a file cannot be read or has a field this model does not know.
pub fn scenarios() -> anyhow::Result<Vec<Scenario>> {
    let mut all = Vec::new();
    for group in std::fs::read_dir(folder()).with_context(|| folder().display().to_string())? {
        let group = group?.path();
        if !group.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&group).with_context(|| group.display().to_string())? {
            let path = file?.path();
            let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let mut scenario: Scenario =
                serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
            scenario.id = format!("{}/{}", scenario.group, scenario.name);
            all.push(scenario);
        }
    }
    all.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(all)
}

/// The folder of the recordings.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"))
}

/// A server under test.
pub struct Target {
    /// Where requests go.
    pub address: SocketAddr,
    /// TLS configuration per recorded user (`admin`, `node1`, …, `anonymous`).
    pub users: HashMap<String, rustls::ClientConfig>,
    /// The apiserver at it or behind it, for what no request can do: compaction and restarts.
    pub apiserver: Arc<Apiserver>,
    /// Recorded headers its answers may lack: what only the apiserver itself can know.
    pub may_lack: &'static [&'static str],
}

impl std::fmt::Debug for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Target")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How a replay ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Every step matched.
    Passed,
    /// The first step that did not.
    Failed {
        /// Index into the scenario's steps.
        step: usize,
        /// What differed, with the request it belongs to.
        why: String,
        /// The recorded bytes; empty when the difference is no matter of bytes.
        expected: String,
        /// The live bytes.
        got: String,
    },
    /// Not replayed.
    Skipped {
        /// Why not.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
