//! Recordings of a real kube-apiserver, and their replay against a server under test.
//!
//! Owns the model of `golden/*/*.json` (see `golden/README.md`), the matcher that compares bytes
//! while letting resource versions, UIDs and times differ consistently, and the replay of one
//! scenario over HTTP/1.1 and TLS. The same replay runs against the embedded apiserver and through
//! a proxy in front of it.
//!
//! Refuses: to start servers (the caller hands over a fresh one per scenario) and to parse bodies
//! it compares; literal bytes must be equal.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

/// One recorded scenario.
#[derive(Debug)]
pub struct Scenario {
    /// `group/name`, as the file is called.
    pub id: String,
}

/// The recordings in this package, sorted by id.
pub fn scenarios() -> anyhow::Result<Vec<Scenario>> {
    todo!()
}

/// The folder of the recordings.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"))
}

/// What a replay needs besides the socket under test: reaching behind the server.
pub trait Backend: Send + Sync {
    /// Stores the recorded result of a write, as the server would have after executing it, under a
    /// new resource version, which is returned. `path` is the request's, without a query. `None`:
    /// this server executes writes itself, send them.
    fn load<'a>(
        &'a self,
        method: &'a str,
        path: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, anyhow::Result<Option<u64>>>;

    /// Forgets history up to `revision`, as an etcd compaction does.
    fn compact(&self, revision: u64) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Starts a new server process on the same storage; the address may change.
    fn restart(&self) -> BoxFuture<'_, anyhow::Result<SocketAddr>>;
}

/// A server under test.
pub struct Target {
    /// Where requests go.
    pub address: SocketAddr,
    /// TLS configuration per recorded user (`admin`, `node1`, …, `anonymous`).
    pub users: HashMap<String, Arc<rustls::ClientConfig>>,
    /// The way behind it.
    pub backend: Arc<dyn Backend>,
}

/// How a replay ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every step matched.
    Passed,
    /// The first step that did not.
    Failed {
        /// Index into the scenario's steps.
        step: usize,
        /// What differed.
        why: String,
        /// The recorded text around it.
        expected: String,
        /// The live text around it.
        got: String,
    },
    /// Not replayed.
    Skipped {
        /// Why not.
        reason: String,
    },
}

/// Replays one scenario on a fresh server.
pub async fn replay(scenario: &Scenario, target: &Target) -> Outcome {
    let _ = target;
    todo!("{}", scenario.id)
}
